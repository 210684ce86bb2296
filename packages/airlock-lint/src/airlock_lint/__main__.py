"""The command `airlock-lint`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import _baseline, _check, _files, _fix
from ._formats import FORMATS
from ._rules import RULES

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 if there is nothing to say, 1 if there are findings, or calls that were left. The status is 2, as argparse has
        it, if the command itself is wrong.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        files = _files.find(options.paths, exclude=options.exclude, tests=options.tests)
    except FileNotFoundError as error:
        parser.error(f"there is no {error}")
    if options.command == "check":
        return _run_check(parser, options, files)
    return _fix.run(files, diff=options.diff, read_now=options.read_now)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="airlock-lint", description="Finds calls that bypass Airlock.")
    commands = parser.add_subparsers(dest="command", required=True)

    check = commands.add_parser("check", help="report calls that bypass Airlock")
    check.add_argument("--format", choices=FORMATS, default="text")
    check.add_argument("--select", type=_codes, default=[], metavar="CODES", help="report only these: AIR001,AIR005")
    check.add_argument("--ignore", type=_codes, default=[], metavar="CODES", help="do not report these")
    check.add_argument("--strict", action="store_true", help="report what may be a task, too")
    check.add_argument("--baseline", type=Path, metavar="FILE", help="pass over the findings in this file")
    check.add_argument("--write-baseline", action="store_true", help="write the findings into that file")

    fix = commands.add_parser("fix", help="rewrite them to airlock.enqueue()")
    fix.add_argument("--diff", action="store_true", help="print what would change, and change nothing")
    fix.add_argument(
        "--read-now",
        action="store_true",
        help="rewrite `on_commit(lambda: task.delay(order.status))` though the status may be different at the commit",
    )

    for command in (check, fix):
        command.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a directory or a Python file")
        command.add_argument(
            "--exclude", action="append", default=[], metavar="PATTERN", help="leave out files like 'legacy/*'"
        )
        command.add_argument("--tests", action="store_true", help="do not leave out the tests")
    return parser


def _codes(value: str) -> list[str]:
    codes = [code.strip().upper() for code in value.split(",") if code.strip()]
    for code in codes:
        if not any(known.startswith(code) for known in RULES):
            raise argparse.ArgumentTypeError(f"there is no code {code}")
    return codes


def _run_check(parser: argparse.ArgumentParser, options: argparse.Namespace, files: list[_files.File]) -> int:
    if options.write_baseline and not options.baseline:
        parser.error("--write-baseline needs --baseline FILE")
    found = _check.findings(files, _files.read(files), strict=options.strict)
    found = _check.selected(found, options.select, options.ignore)
    if options.write_baseline:
        _baseline.write(options.baseline, found)
        sys.stderr.write(f"{len(found)} findings are in {options.baseline} now.\n")
        return 0
    if options.baseline:
        try:
            found = _baseline.new(found, _baseline.read(options.baseline))
        except (OSError, ValueError) as error:
            parser.error(str(error))
    sys.stdout.write(FORMATS[options.format](found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
