"""A line on a terminal that says how far the work is."""

from __future__ import annotations

import sys
from typing import Self


class Progress:
    """Call it with the number that is done, and of how many. It is silent if nobody watches."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._watched = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._watched:
            sys.stderr.write("\r\x1b[K")

    def __call__(self, done: int, of: int) -> None:
        if self._watched:
            sys.stderr.write(f"\r\x1b[K{self._doing} {done}/{of}")
            sys.stderr.flush()
