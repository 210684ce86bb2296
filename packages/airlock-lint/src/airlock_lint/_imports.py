"""The import of `airlock`: whether a module has one, and where it belongs."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import libcst as cst
import libcst.matchers as m

from ._arguments import UnsafeError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ._names import Later

_FUTURE, _STANDARD, _INSTALLED, _OWN = range(4)


@dataclass(frozen=True, slots=True)
class Enqueue:
    """How a module calls `enqueue`."""

    #: The name that is imported: that of the module, or of the function itself.
    name: str
    is_module: bool = True
    is_imported: bool = True

    @property
    def function(self) -> cst.BaseExpression:
        """What is called."""
        name = cst.Name(self.name)
        return cst.Attribute(name, cst.Name("enqueue")) if self.is_module else name

    def check_name(self, later: Later) -> None:
        """Check that the name means the import where it is used.

        Raises:
            UnsafeError: if it means something else.
        """
        imports = [later.tree.parents[each] for each in later.bindings(self.name)]
        is_import = all(isinstance(each, (ast.Import, ast.ImportFrom)) for each in imports)
        is_shared = self.name in later.tree.shared
        if self.is_imported and (not is_import or is_shared or not isinstance(later.place(self.name), ast.Module)):
            raise UnsafeError(f"the name `{self.name}` means something else here")


def way_to_enqueue(module: cst.Module) -> Enqueue:
    """How a module already calls `enqueue`, or `airlock.enqueue`, which needs an import.

    Raises:
        UnsafeError: if the module uses the name `airlock` for something else.
    """
    if "airlock" not in module.code:
        return Enqueue("airlock", is_imported=False)
    for statement in _imports(module):
        match statement:
            case cst.ImportFrom(module=cst.Name(value="airlock"), names=[*aliases], relative=[]):
                for alias in aliases:
                    if alias.evaluated_name == "enqueue":
                        return Enqueue(alias.evaluated_alias or "enqueue", is_module=False)
            case cst.Import(names=aliases):
                for alias in aliases:
                    if alias.evaluated_name == "airlock" or alias.evaluated_name.startswith("airlock."):
                        if alias.evaluated_alias is None:
                            return Enqueue("airlock")
                        if alias.evaluated_name == "airlock":
                            return Enqueue(alias.evaluated_alias)
    if _uses_name(module, "airlock"):
        raise UnsafeError("the name `airlock` means something else in this module")
    return Enqueue("airlock", is_imported=False)


def _imports(module: cst.Module) -> list[cst.Import | cst.ImportFrom]:
    return [
        small
        for statement in module.body
        if isinstance(statement, cst.SimpleStatementLine)
        for small in statement.body
        if isinstance(small, (cst.Import, cst.ImportFrom))
    ]


def _uses_name(module: cst.Module, name: str) -> bool:
    """Whether a name is used at all, other than as that of an attribute, a keyword or a module to import from."""
    attributes = {node.attr for node in m.findall(module, m.Attribute()) if isinstance(node, cst.Attribute)}
    keywords = {node.keyword for node in m.findall(module, m.Arg()) if isinstance(node, cst.Arg)}
    sources = {
        name
        for node in m.findall(module, m.ImportFrom(module=m.DoNotCare()))
        if isinstance(node, cst.ImportFrom) and node.module
        for name in m.findall(node.module, m.Name())
    }
    return any(node not in attributes | keywords | sources for node in m.findall(module, m.Name(name)))


def add_import(module: cst.Module, project_packages: Collection[str]) -> cst.Module:
    """Add `import airlock` among the imports of installed packages, as isort would."""
    body = list(module.body)
    own = cst.SimpleStatementLine([cst.Import([cst.ImportAlias(cst.Name("airlock"))])])
    block = [
        (index, statement, section)
        for index, statement in enumerate(body)
        if (section := _section(statement, project_packages)) is not None
        and isinstance(statement, cst.SimpleStatementLine)
    ]
    # Imports further down are there for a reason of their own.
    block = [entry for position, entry in enumerate(block) if entry[0] - block[0][0] == position]
    following = next(((i, s, section) for i, s, section in block if _comes_after(s, section)), None)
    if following is not None:
        index, statement, section = following
        above, below = _parted(statement.leading_lines)
        if index == 0:
            module, comments = _without_last_comments(module)
            below = [*comments, *below]
        if section == _OWN:  # the sections are parted by a blank line
            first = index == block[0][0]
            joins = not first and _section(body[index - 1], project_packages) == _INSTALLED
            blank = above or [cst.EmptyLine(indent=False)]
            own = own.with_changes(leading_lines=[] if joins else above)
            statement = statement.with_changes(leading_lines=[*blank, *below])
        else:
            own = own.with_changes(leading_lines=above)
            statement = statement.with_changes(leading_lines=below)
        body[index : index + 1] = [own, statement]
        return module.with_changes(body=body)
    if block:
        index, _, section = block[-1]
        lines = [] if section == _INSTALLED else [cst.EmptyLine(indent=False)]
        body.insert(index + 1, own.with_changes(leading_lines=lines))
        return module.with_changes(body=body)
    return _without_imports(module, body, own)


def _without_imports(
    module: cst.Module, body: list[cst.SimpleStatementLine | cst.BaseCompoundStatement], own: cst.SimpleStatementLine
) -> cst.Module:
    has_docstring = module.get_docstring() is not None
    index = 1 if has_docstring else 0
    if has_docstring:
        own = own.with_changes(leading_lines=[cst.EmptyLine(indent=False)])
    if index < len(body) and not any(line.comment is None for line in body[index].leading_lines):
        blank = [cst.EmptyLine(indent=False)] * 2
        body[index] = body[index].with_changes(leading_lines=[*blank, *body[index].leading_lines])
    body.insert(index, own)
    return module.with_changes(body=body)


def _section(statement: cst.BaseStatement, project_packages: Collection[str]) -> int | None:
    """The section that an import belongs to."""
    if not isinstance(statement, cst.SimpleStatementLine):
        return None
    match statement.body[0]:
        case cst.ImportFrom(relative=[_, *_]):
            return _OWN
        case cst.ImportFrom(module=cst.Name() | cst.Attribute() as module):
            top = cst.Module([]).code_for_node(module).partition(".")[0]
        case cst.Import(names=[first, *_]):
            top = first.evaluated_name.partition(".")[0]
        case _:
            return None
    if top == "__future__":
        return _FUTURE
    if top in sys.stdlib_module_names:
        return _STANDARD
    return _OWN if top in project_packages else _INSTALLED


def _comes_after(statement: cst.SimpleStatementLine, section: int) -> bool:
    """Whether an import comes after `import airlock`."""
    if section != _INSTALLED:
        return section > _INSTALLED
    match statement.body[0]:
        case cst.Import(names=[first, *_]):
            return first.evaluated_name.lower() > "airlock"
        case _:
            return True


def _without_last_comments(module: cst.Module) -> tuple[cst.Module, list[cst.EmptyLine]]:
    """A module without the comments that belong to its first statement: those after a blank line."""
    header = list(module.header)
    comments: list[cst.EmptyLine] = []
    while header and header[-1].comment is not None:
        comments.insert(0, header.pop())
    return (module.with_changes(header=header), comments) if header else (module, [])


def _parted(lines: Sequence[cst.EmptyLine]) -> tuple[list[cst.EmptyLine], list[cst.EmptyLine]]:
    """The blank lines before the first comment, and the rest."""
    blank = 0
    while blank < len(lines) and lines[blank].comment is None:
        blank += 1
    return list(lines[:blank]), list(lines[blank:])
