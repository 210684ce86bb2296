"""How long airlock-lint takes for a project of 100,000 lines.

python benchmarks/lint.py          prints a table, in about a minute
python benchmarks/lint.py --fast   looks at a project a tenth of the size
python benchmarks/lint.py --check  exits with 1 if it takes longer than its reach
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

LINES = 100_000
REACH = 10  # seconds, for 100,000 lines on two processors

TASKS = '''"""Tasks of app {number}."""

from celery import shared_task

'''
TASK = '''

@shared_task(bind=True, max_retries=3)
def task_{index}(self, order_id, *, urgent=False):
    """Do something about an order."""
    try:
        order = find(order_id)
    except LookupError as error:
        raise self.retry(exc=error, countdown=2**self.request.retries) from error
    return {{"order": order, "urgent": urgent, "total": sum(line.price * line.count for line in order.lines)}}
'''
VIEWS = '''"""Views of app {number}."""

import logging

from django.db import transaction
from django.http import HttpResponse

from .tasks import task_0, task_1

logger = logging.getLogger(__name__)

'''
VIEW = '''

class View{index}:
    """Shows an order, and changes it."""

    template_name = "shop/order.html"

    def get_context(self, request, order_id):
        order = self.orders.filter(pk=order_id, customer=request.user).first()
        return {{
            "order": order,
            "lines": [line for line in order.lines if line.count > 0],
            "total": sum(line.price * line.count for line in order.lines),
        }}

    def post(self, request, order_id):
        order = self.get_context(request, order_id)["order"]
        with transaction.atomic():
            order.status = request.POST["status"]
            order.save(update_fields=["status"])
            logger.info("order %s is %s now", order.pk, order.status)
            task_{task}.delay(order.pk)
        return HttpResponse(status=204)
'''


def make_project(directory: Path, lines: int) -> int:
    """Write a project of about so many lines, and return how many modules it has."""
    number = written = 0
    while written < lines:
        app = directory / f"app_{number}"
        app.mkdir()
        texts = {
            "__init__.py": "",
            "tasks.py": TASKS.format(number=number) + "".join(TASK.format(index=index) for index in range(17)),
            "views.py": VIEWS.format(number=number)
            + "".join(VIEW.format(index=index, task=index % 2) for index in range(8)),
        }
        for name, text in texts.items():
            (app / name).write_text(text)
            written += text.count("\n")
        number += 1
    return number * len(texts)


def seconds(command: str, directory: Path) -> float:
    began = perf_counter()
    subprocess.run([sys.executable, "-m", "airlock_lint", command, "."], cwd=directory, stdout=subprocess.DEVNULL)
    return perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    lines = LINES // 10 if options.fast else LINES
    with tempfile.TemporaryDirectory() as directory:
        modules = make_project(Path(directory), lines)
        checked = min(seconds("check", Path(directory)) for _ in range(3))
        fixed = seconds("fix", Path(directory))
    missed = checked > REACH * lines / LINES
    print(f"\nA project of {lines:,} lines in {modules} modules:\n")
    print("| | reach | seconds | |\n|---|---|---|---|")
    print(f"| `airlock-lint check` | {REACH * lines / LINES:g} s | {checked:.1f} | {'**missed**' if missed else ''} |")
    print(f"| `airlock-lint fix`, which rewrites all of them | | {fixed:.1f} | |")
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
