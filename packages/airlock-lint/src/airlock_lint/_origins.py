"""Where the value of an expression comes from, as far as one module tells.

A module says `from shop.tasks import notify` and calls `notify.s(1).delay()`. What `notify` is, only `shop.tasks` can
tell. So the first pass over a module writes down origins, such as `Call(Attribute(Name("shop.tasks.notify"), "s"))`,
and `_kinds` looks at those of all modules together.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Name:
    """What has this dotted name, counted from the top of the project or of an installed package."""

    dotted: str


@dataclass(frozen=True, slots=True)
class Attribute:
    of: Origin
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """What a call returns. An instance is a call of its class."""

    function: Origin
    #: Whether it has positional arguments: `app.task(function)` is a task, `app.task(bind=True)` a decorator.
    positional: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    of: Origin


@dataclass(frozen=True, slots=True)
class Pipe:
    """`left | right`."""

    left: Origin
    right: Origin


@dataclass(frozen=True, slots=True)
class Either:
    of: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class Function:
    decorators: tuple[Origin, ...]
    #: What it returns, if that is a single expression.
    returns: Origin


@dataclass(frozen=True, slots=True)
class Class:
    bases: tuple[Origin, ...]
    members: tuple[tuple[str, Origin], ...]


#: `None` is what a module cannot tell: a parameter, for example.
Origin = Name | Attribute | Call | Item | Pipe | Either | Function | Class | None


def attribute(of: Origin, name: str) -> Origin:
    """The origin of `of.name`."""
    if isinstance(of, Name):
        return Name(f"{of.dotted}.{name}")
    return None if of is None else Attribute(of, name)


def either(origins: list[Origin]) -> Origin:
    """The origin of what has one of these."""
    distinct = tuple(dict.fromkeys(origins))
    return distinct[0] if len(distinct) == 1 else Either(distinct) if distinct else None
