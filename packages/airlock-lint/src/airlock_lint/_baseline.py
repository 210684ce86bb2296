"""Old findings that are to be passed over: a file that counts them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._rules import Finding

#: Path, code, and the text of the line: findings keep them when lines are added above.
Key = tuple[str, str, str]


def write(path: Path, found: Iterable[Finding]) -> None:
    """Write down findings."""
    counts = Counter(map(_key, found))
    entries = [
        {"path": where, "code": code, "text": text, "count": count}
        for (where, code, text), count in sorted(counts.items())
    ]
    path.write_text(json.dumps({"version": 1, "findings": entries}, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read(path: Path) -> Counter[Key]:
    """Read what `write` has written.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no baseline.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        return Counter({(it["path"], it["code"], it["text"]): int(it["count"]) for it in content["findings"]})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no baseline of airlock-lint: {error!r}") from error


def new(found: Iterable[Finding], old: Counter[Key]) -> list[Finding]:
    """The findings that are not old. If one line was there twice and is there three times, one of them is new."""
    left = Counter(old)
    fresh = []
    for each in found:
        if left[_key(each)]:
            left[_key(each)] -= 1
        else:
            fresh.append(each)
    return fresh


def _key(found: Finding) -> Key:
    return Path(found.path).as_posix(), found.code, found.text
