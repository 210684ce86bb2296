from contextlib import AbstractContextManager

from django.db import connection
from django_tenants.utils import schema_context


def same_schema() -> AbstractContextManager[None]:
    """Dispatch in the schema of the `enqueue` call."""
    return schema_context(connection.schema_name)
