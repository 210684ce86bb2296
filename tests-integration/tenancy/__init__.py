"""A Django project with a schema for each tenant, which logs with structlog."""
