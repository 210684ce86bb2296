"""`python -m relayed.write '[["say", 1], ["kill_the_relay"]]'`: enqueue calls in one transaction, and die.

`python -m relayed.write 100 "writer 1"`: enqueue so many tasks, in transactions of three, and end well.
"""

from __future__ import annotations

import json
import os
import sys

import django

import airlock


def main(program: str, name: str = "") -> None:
    django.setup()
    from django.db.transaction import atomic

    from relayed import calls
    from relayed.celery import note

    what = json.loads(program)
    if isinstance(what, int):
        for begin in range(0, what, 3):
            with airlock.scope(), atomic():
                for number in range(begin, min(begin + 3, what)):
                    airlock.enqueue(note, f"{name}{number}")
        return
    with airlock.scope():
        with atomic():
            for function, *arguments in what:
                airlock.enqueue(getattr(calls, function, note), *arguments)
        os._exit(0)


main(*sys.argv[1:])
