"""`manage.py airlock_relay`: dispatches what requests and tasks have left over."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from airlock import get_configuration
from airlock.integrations.executors.celery import CeleryExecutor, celery_executor
from airlock.integrations.outbox._relay import BrokerDownError, Relay, broker_error, databases, drain, run
from airlock.integrations.outbox._waking import Waker
from airlock.integrations.outbox.models import Entry

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    help = (
        "Dispatches what the outbox holds and nobody else has dispatched: after a process died, or the broker was down."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--once", action="store_true", help="Dispatch one batch of what is due, and end.")
        how.add_argument("--drain", action="store_true", help="Dispatch until nothing is due, and end.")
        how.add_argument(
            "--check",
            action="store_true",
            help="Dispatch nothing. Fail if the database or the broker is away, or if something waits for too long.",
        )
        parser.add_argument(
            "--max-age",
            type=float,
            default=300,
            metavar="SECONDS",
            help="For --check: how long an entry may have been due. Default: %(default)s.",
        )
        parser.add_argument(
            "--database", action="append", choices=list(connections), help="Only this database. May be repeated."
        )

    def handle(self, *args: Any, **given: Any) -> None:
        relays = [Relay(alias) for alias in given["database"] or databases()]
        if not relays:
            raise CommandError("No database may have the table of the outbox: see DATABASE_ROUTERS.")
        if given["check"]:
            self._check(relays, given["max_age"])
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        try:
            if given["once"]:
                self._say(sum(relay.step() for relay in relays))
            elif given["drain"]:
                self._say(self._drain(relays, stop))
            else:
                self.stdout.write(f"Relaying from {', '.join(relay.alias for relay in relays)}.")
                run(relays, stop, Waker(relays, stop).sleep)
        except (BrokerDownError, DatabaseError) as error:
            raise CommandError(f"{type(error).__name__}: {error}") from error

    def _say(self, count: int) -> None:
        self.stdout.write(f"{count} {'entry' if count == 1 else 'entries'} taken.")

    def _drain(self, relays: list[Relay], stop: threading.Event) -> int:
        if not self.stdout.isatty():
            return drain(relays, stop)
        due = sum(Entry.objects.using(relay.alias).filter(due__isnull=False).count() for relay in relays)
        taken = 0

        def tell(count: int) -> None:
            nonlocal taken
            taken += count
            part = min(1, taken / max(due, 1))
            bar = "#" * round(40 * part)
            self.stdout.write(f"\r[{bar:<40}] {taken} of {max(due, taken)}", ending="")
            self.stdout.flush()

        count = drain(relays, stop, tell)
        self.stdout.write("")
        return count

    def _check(self, relays: list[Relay], max_age: float) -> None:
        problems = []
        for relay in relays:
            try:
                age = relay.age_of_oldest()
            except DatabaseError as error:
                problems.append(f"The table on {relay.alias!r} cannot be read: {error}")
                continue
            if age > max_age:
                problems.append(f"On {relay.alias!r} an entry has been due for {age:.0f} s: is a relay running?")
        executor = get_configuration().executor or celery_executor
        if isinstance(executor, CeleryExecutor) and (down := broker_error(executor)):
            problems.append(f"The broker cannot be reached: {down}")
        if problems:
            raise CommandError("\n".join(problems))
        self.stdout.write("All well.")
