"""What the names of a project are: the origins of all its modules, taken together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._known import KNOWN, WRITING_METHODS, Kind, kind_of_installed, looks_like_app
from ._origins import Attribute, Call, Class, Either, Function, Item, Name, Origin, Pipe, attribute

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._scan import Module

#: What publishes a task or a signature.
PUBLISHING = ("delay", "apply_async", "delay_on_commit", "apply_async_on_commit")

#: What publishes when it is called, as a plain signature does not: `chord(header)(callback)`.
_CANVASES = {f"{module}.{name}" for module in ("celery", "celery.canvas") for name in ("chain", "group", "chord")}
_MAKE_SIGNATURES = {
    *("s", "si", "signature", "subtask", "subtask_from_request", "map", "starmap", "chunks", "clone", "set"),
    *("on_error", "replace_args"),
}
_OF_APP = {
    "task": Kind.TASK_DECORATOR,
    "Task": Kind.TASK_CLASS,
    "signature": Kind.SIGNATURE_MAKER,
    "tasks": Kind.TASK_REGISTRY,
    "register_task": Kind.TASK_REGISTRAR,
    "_get_current_object": Kind.APP_CLASS,
}
#: What calling something of a kind returns.
_RETURNED = {
    Kind.SIGNATURE_MAKER: Kind.SIGNATURE,
    Kind.TASK_CLASS: Kind.TASK,
    Kind.APP_CLASS: Kind.APP,
    Kind.TASK_REGISTRAR: Kind.TASK,
    Kind.MESSAGE_CLASS: Kind.MESSAGE,
    Kind.CLIENT_CLASS: Kind.CLIENT,
    Kind.ATOMIC: Kind.ATOMIC,
    Kind.RECEIVER: Kind.RECEIVER,
}
_CLASSES = (Kind.TASK_CLASS, Kind.APP_CLASS, Kind.MESSAGE_CLASS, Kind.CLIENT_CLASS)


class Project:
    """All modules that were read, by name."""

    def __init__(self, modules: Iterable[Module]) -> None:
        self._modules: dict[str, Module | None] = {}
        for module in modules:
            for name in module.names:
                # A name that two files could have tells nothing, except for the full one.
                taken = name in self._modules and name != module.names[0]
                self._modules[name] = None if taken else module
        self._looking_at: set[Origin] = set()
        self._kinds: dict[Origin, Kind | None] = {}

    def kind(self, origin: Origin) -> Kind | None:
        """What something is; `None` if that is unknown, or of no interest."""
        if origin in self._kinds:
            return self._kinds[origin]
        if origin in self._looking_at:  # it refers to itself
            return None
        self._looking_at.add(origin)
        try:
            kind = self._kinds[origin] = self._kind(origin)
        finally:
            self._looking_at.discard(origin)
        return kind

    def _kind(self, origin: Origin) -> Kind | None:
        match origin:
            case Name(dotted):
                return self._kind_of_name(dotted)
            case Attribute(of, name):
                return self._kind_of_attribute(of, name)
            case Call(function, positional):
                return self._kind_of_call(function, positional=positional)
            case Item(of):
                return Kind.TASK if self.kind(of) is Kind.TASK_REGISTRY else None
            case Pipe(left, right):
                piped = {self.kind(left), self.kind(right)}
                return Kind.SIGNATURE if piped & {Kind.SIGNATURE, Kind.TASK} else None
            case Either(of):
                kinds = {self.kind(each) for each in of}
                return (
                    kinds.pop() if len(kinds) == 1 else Kind.SIGNATURE if kinds == {Kind.TASK, Kind.SIGNATURE} else None
                )
            case Function(decorators, _):
                return Kind.TASK if any(map(self._makes_task, decorators)) else None
            case Class(bases, _):
                return next((kind for base in bases if (kind := self.kind(base)) in _CLASSES), None)
            case None:
                return None

    def is_canvas(self, origin: Origin) -> bool:
        """Whether something is a chain, a group or a chord."""
        match origin:
            case Call(Name(dotted)):
                return dotted in _CANVASES
            case Pipe():
                return self.kind(origin) is Kind.SIGNATURE
            case _:
                return False

    def _makes_task(self, decorator: Origin) -> bool:
        # A task is what a decorator of the project makes that calls that of Celery: `return shared_task(function)`.
        makes_task = (Kind.TASK_DECORATOR, Kind.TASK)
        return self.kind(decorator) in makes_task or self.kind(Call(decorator, positional=True)) is Kind.TASK

    def definition(self, dotted: str) -> Origin | str:
        """What defines a name: an origin, or the full name if it is not one of the project's."""
        seen = set()
        while dotted not in seen:
            seen.add(dotted)
            module, rest = self._split(dotted)
            if module is None:
                return dotted
            if not rest:
                return None
            found = module.bindings.get(rest[0])
            if found is None:
                found = self._star(module, rest[0])
            for name in rest[1:]:
                found = self._member(found, name)
            if not isinstance(found, Name):
                return found
            dotted = found.dotted
        return None

    def _split(self, dotted: str) -> tuple[Module | None, list[str]]:
        """The module that a name begins with, and the rest of the name."""
        parts = dotted.split(".")
        for end in range(len(parts), 0, -1):
            if module := self._modules.get(".".join(parts[:end])):
                return module, parts[end:]
        return None, parts

    def _star(self, module: Module, name: str) -> Origin:
        """What a `from other import *` of the module has brought along."""
        for other in module.stars:
            found = self.definition(f"{other}.{name}")
            if isinstance(found, str):
                if kind_of_installed(found):
                    return Name(found)
            elif found is not None:
                return found
        return None

    def _member(self, of: Origin, name: str) -> Origin:
        """What a class, or an instance of one, has under a name."""
        if isinstance(of, Name):
            found = self.definition(of.dotted)
            of = Name(found) if isinstance(found, str) else found
        if isinstance(of, Class):
            members = dict(of.members)
            if name in members:
                return members[name]
            for base in of.bases:
                inherited = self._member(base, name)
                if inherited is not None and not isinstance(inherited, (Name, Attribute)):
                    return inherited
        return attribute(of, name)

    def _kind_of_name(self, dotted: str) -> Kind | None:
        if dotted in KNOWN:
            return KNOWN[dotted]
        found = self.definition(dotted)
        if isinstance(found, str):
            dotted = found
            kind = kind_of_installed(dotted)
        else:
            kind = self.kind(found)
        # Some projects have their app made by a function that they import from a setting.
        if kind is not None or looks_like_app(dotted):
            return kind or Kind.APP
        of, _, name = dotted.rpartition(".")
        return self._kind_of_attribute(Name(of), name) if of else None

    def _kind_of_attribute(self, of: Origin, name: str) -> Kind | None:
        kind = self.kind(of)
        if kind in (Kind.TASK, Kind.SIGNATURE) and name in _MAKE_SIGNATURES:
            return Kind.SIGNATURE_MAKER
        if kind is Kind.APP:
            return _OF_APP.get(name)
        if (kind in (Kind.TASK, Kind.TASK_CLASS) and name in ("app", "_app")) or name == "current_app":
            return Kind.APP
        if kind is Kind.MESSAGE and name == "send":
            return Kind.EFFECT
        if kind is Kind.CLIENT and name in WRITING_METHODS:
            return Kind.EFFECT
        if isinstance(of, Call):
            found = self._member(of.function, name)
            if found != Attribute(of.function, name) and not isinstance(found, Name):
                return self.kind(found)
            if isinstance(found, Name) and found != attribute(of.function, name):
                return self.kind(found)
        return None

    def _kind_of_call(self, function: Origin, *, positional: bool) -> Kind | None:
        kind = self.kind(function)
        if kind is Kind.TASK_DECORATOR:
            return Kind.TASK if positional else Kind.TASK_DECORATOR
        if kind is not None:
            return _RETURNED.get(kind)
        if isinstance(function, Name):
            found = self.definition(function.dotted)
            if isinstance(found, Function) and found.returns is not None:
                return self.kind(found.returns)
        return None
