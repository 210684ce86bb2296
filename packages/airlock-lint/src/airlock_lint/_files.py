"""The files of a project, and what all of them say."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ._scan import Module, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_SKIPPED_DIRECTORIES = {"__pycache__", "build", "dist", "node_modules", "site-packages", "venv"}
#: As pytest and Django call them.
_TESTS = ("test_*.py", "*_test.py", "tests.py", "conftest.py")
#: Starting processes takes as long as reading this many files.
_FEW = 60


class File(NamedTuple):
    path: Path
    #: The path of the command line that it was found in.
    root: Path
    #: Whether findings in it count. What it defines counts in any case.
    reported: bool


def find(paths: Sequence[Path], *, exclude: Sequence[str] = (), tests: bool = False) -> list[File]:
    """The Python files in directories, and files that are given themselves.

    Raises:
        FileNotFoundError: if there is no such path.
    """
    files: dict[Path, File] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(path)
        for file in [path] if path.is_file() else _walk(path):
            inside = file.relative_to(path) if path.is_dir() else Path(file.name)
            wanted = tests or path.is_file() or not _is_test(inside)
            wanted = wanted and not any(fnmatch(str(each), pattern) for each in (file, inside) for pattern in exclude)
            root = path if path.is_dir() else path.parent
            files.setdefault(file.resolve(), File(file, root, wanted))
    return list(files.values())


def _walk(directory: Path) -> Iterator[Path]:
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(
            name for name in directories if name not in _SKIPPED_DIRECTORIES and not name.startswith(".")
        )
        yield from (Path(parent) / name for name in sorted(names) if name.endswith(".py"))


def _is_test(inside: Path) -> bool:
    in_tests = any(part in ("test", "tests") for part in inside.parts[:-1])
    return in_tests or any(fnmatch(inside.name, pattern) for pattern in _TESTS)


def read(files: Sequence[File], progress: Callable[[int, int], None] = lambda done, of: None) -> list[Module]:
    """Scan files, with all processors if there are many. `progress` is told how many are done, of how many."""
    modules: list[Module] = []
    with mapping(len(files), few=_FEW) as map_:
        for module in map_(scan, [file.path for file in files], [file.root for file in files]):
            modules.append(module)
            progress(len(modules), len(files))
    return modules


@contextmanager
def mapping(number: int, *, few: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` for so many calls: on all processors, if they are more than a few, otherwise the usual one."""
    processors = os.cpu_count() or 1
    if number <= few or processors == 1:
        yield map
        return
    with ProcessPoolExecutor(processors) as pool:
        yield partial(pool.map, chunksize=max(1, min(20, number // (4 * processors))))
