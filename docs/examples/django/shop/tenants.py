from contextlib import contextmanager
from threading import local


class Active(local):
    """Stands for the schema that the database connection of a thread uses."""

    schema = "public"


active = Active()


@contextmanager
def schema_context(schema):
    """Stands for the one of your library."""
    before, active.schema = active.schema, schema
    try:
        yield
    finally:
        active.schema = before


def same_schema():
    """A carrier: called at `enqueue`, and entered around the dispatch."""
    return schema_context(active.schema)
