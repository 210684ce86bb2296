"""A toy framework with units of work, responses that stream, and a message gateway."""

from contextlib import contextmanager
from contextvars import ContextVar

request_id = ContextVar("request_id", default="none")
posts: list[list] = []  # what the gateway was given, one list for each post


class UnitOfWork:
    """Changes that are saved together at the end of a block, or not at all."""

    def __init__(self):
        self.state = "open"  # later "saved" or "abandoned"
        self.callbacks = []  # called when it is over


_unit: ContextVar[UnitOfWork | None] = ContextVar("unit", default=None)


def current_unit():
    return _unit.get()


@contextmanager
def unit_of_work():
    unit = UnitOfWork()
    token = _unit.set(unit)
    try:
        yield
        unit.state = "saved"
    finally:
        if unit.state == "open":
            unit.state = "abandoned"
        _unit.reset(token)
        for callback in unit.callbacks:
            callback()


def post(messages):
    """Hand messages to the gateway. It takes up to three in one post."""
    posts.append(messages)
