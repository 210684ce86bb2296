"""Finds code that bypasses Airlock, and rewrites it. The command is `airlock-lint`."""

from ._rules import RULES

#: The codes, each with a sentence that says what it is about.
__all__ = ["RULES"]
