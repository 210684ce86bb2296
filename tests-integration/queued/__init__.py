"""A Django project with an outbox, whose jobs are those of the tests of airlock-queues."""
