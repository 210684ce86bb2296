"""No package uses a private name of another: they are released apart, and only public names are kept."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = {source.parent.name: source for source in sorted(Path(__file__).parents[1].glob("packages/*/src"))}


@pytest.mark.parametrize("package", SOURCES)
def test_package_uses_no_private_name_of_another(package: str) -> None:
    metadata = tomllib.loads((SOURCES[package].parent / "pyproject.toml").read_text())
    needed = {re.match(r"[\w-]+", line)[0] for line in metadata["project"]["dependencies"]}

    found = list(uses(SOURCES[package], [SOURCES[name] for name in SOURCES.keys() & needed]))
    assert not found, "\n".join(["private names of other packages:", *found])


def test_every_way_to_use_a_private_name_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "core/airlock/_scope.py", "class Scope:\n    def __init__(self): self._intents = []")
    write(tmp_path / "user/airlock/integrations/user/_own.py", "class Own: ...")
    user = write(
        tmp_path / "user/airlock/integrations/user/__init__.py",
        "import airlock._scope",
        "from airlock import _scope, enqueue",
        "from airlock._scope import Scope",
        "from airlock.integrations.user._own import Own  # its own, in another module",
        "Scope()._intents.clear()",
        "class UserScope(Scope):",
        "    _mine = 1",
        "    def intents(self): return self._intents, self._mine, self.__class__",
    )

    assert [use.removeprefix(str(user)) for use in uses(tmp_path / "user", [tmp_path / "core"])] == [
        ":1: airlock._scope",
        ":2: airlock._scope",
        ":3: airlock._scope.Scope",
        ":5: _intents",
        ":8: _intents",
    ]


def write(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))
    return file


def uses(source: Path, others: list[Path]) -> Iterator[str]:
    """Where a source tree imports a private name of others, or uses a private attribute that only they define."""
    files = sorted(source.rglob("*.py"))
    own = {".".join(file.relative_to(source).with_suffix("").parts).removesuffix(".__init__") for file in files}
    theirs = set().union(*map(private_attributes, others)) - private_attributes(source)
    for file in files:
        nodes = [node for node in ast.walk(ast.parse(file.read_text())) if hasattr(node, "lineno")]
        for node in sorted(nodes, key=lambda node: node.lineno):
            for name in imported(node):
                if is_private(name) and not {name, name.rpartition(".")[0]} & own:
                    yield f"{file}:{node.lineno}: {name}"
            if isinstance(node, ast.Attribute) and node.attr in theirs:
                yield f"{file}:{node.lineno}: {node.attr}"


def imported(node: ast.AST) -> list[str]:
    """The dotted names in `airlock` that a statement imports."""
    match node:
        case ast.Import(names):
            found = [alias.name for alias in names]
        case ast.ImportFrom(module, names, level=0):
            found = [f"{module}.{alias.name}" for alias in names]
        case _:
            found = []
    return [name for name in found if name.startswith("airlock.")]


def private_attributes(source: Path) -> set[str]:
    """The private names that a source tree defines: in modules, in classes, and on `self`."""
    found = set()
    for file in source.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                    found.add(name)
                case ast.Name(name, ast.Store()) | ast.Attribute(ast.Name("self"), name, ast.Store()):
                    found.add(name)
    return set(filter(is_private, found))


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
