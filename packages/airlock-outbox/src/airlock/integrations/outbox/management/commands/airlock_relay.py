"""`manage.py airlock_relay`: dispatches what requests and tasks have left over."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from airlock import Intent, get_configuration
from airlock.integrations.executors.celery import CeleryExecutor, celery_executor
from airlock.integrations.outbox._checks import has_app
from airlock.integrations.outbox._outage import BrokerDownError, broker_error
from airlock.integrations.outbox._relay import Relay, databases, drain, run
from airlock.integrations.outbox._waking import Waker

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator

    from celery import Celery

#: How long Redis may be silent, in seconds. redis-py asks four times, and a lease is longer than that.
_TIMEOUTS = {"socket_timeout": 10, "socket_connect_timeout": 10}
#: The name of a task that any worker may have.
_ANY_TASK = "airlock.outbox.relay"


class Command(BaseCommand):
    help = (
        "Dispatches what the outbox holds and nobody else has dispatched: after a process died, or the broker was down."
    )

    def run_from_argv(self, argv: list[str]) -> None:
        # Not in `handle`: who uses `call_command` may publish other things in the same process.
        for executor in (celery_executor, get_configuration().executor):
            if isinstance(executor, CeleryExecutor):
                _have_it_answer(executor.app)
        super().run_from_argv(argv)

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
        problems = [*_missing_app(), *(problem for relay in relays for problem in _missing_table(relay.alias))]
        if given["check"] and not problems:
            problems = [*_overdue(relays, given["max_age"]), *_missing_broker()]
        if problems:
            raise CommandError("\n".join(problems))
        if given["check"]:
            self.stdout.write("All well.")
            return
        with Waker([relay.alias for relay in relays]) as waker:
            previous = {number: signal.signal(number, waker.stop) for number in (signal.SIGTERM, signal.SIGINT)}
            try:
                if given["once"]:
                    for relay in relays:
                        relay.step()
                elif given["drain"]:
                    self._drain(relays, waker)
                else:
                    self.stdout.write(f"Relaying from {', '.join(relay.alias for relay in relays)}.")
                    run(relays, waker)
            except (BrokerDownError, DatabaseError) as error:
                raise CommandError(f"{error}") from error
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)
        done: Counter[str] = sum((relay.done for relay in relays), Counter())
        self.stdout.write(", ".join(f"{done[what]} {what}" for what in ("dispatched", "put off", "parked")) + ".")

    def _drain(self, relays: list[Relay], waker: Waker) -> None:
        if not self.stdout.isatty():
            drain(relays, lambda: waker.is_stopped)
            return
        due = sum(relay.leases.due().count() for relay in relays)
        taken = 0

        def tell(count: int) -> None:
            nonlocal taken
            taken += count
            total = max(due, taken)  # more may have become due
            bar = "#" * (40 * taken // total)
            self.stdout.write(f"\r[{bar:<40}] {taken} of {total}", ending="")
            self.stdout.flush()

        drain(relays, lambda: waker.is_stopped, tell)
        if taken:
            self.stdout.write("")


def _have_it_answer(app: Celery) -> None:
    """Have RabbitMQ confirm all that an app publishes, whoever's code does it, and do not wait for Redis for ever."""
    options = app.conf.broker_transport_options
    with suppress(Exception), app.connection_for_write() as connection:  # if that is no broker, it is said later
        driver = connection.transport.driver_type
        if driver == "amqp":
            app.conf.broker_transport_options = {**options, "confirm_publish": True}
        elif driver == "redis":
            app.conf.broker_transport_options = _TIMEOUTS | options


def _missing_app() -> Iterator[str]:
    executor = get_configuration().executor or celery_executor
    if isinstance(executor, CeleryExecutor) and not has_app(executor):
        yield (
            "No Celery app is loaded, so it is not known where to publish. Import the app of the project in the "
            "__init__.py of its package, as Celery's guide for Django shows."
        )


def _missing_table(alias: str) -> Iterator[str]:
    with suppress(DatabaseError):  # if the database is away, it is waited for
        if "airlock_outbox" not in connections[alias].introspection.table_names():
            yield (
                f"The database {alias!r} has no table of the outbox. Run: manage.py migrate --database {alias}. "
                "Or keep the outbox off it with DATABASE_ROUTERS, or name the others with --database."
            )


def _overdue(relays: list[Relay], max_age: float) -> Iterator[str]:
    for relay in relays:
        try:
            age = relay.leases.age_of_oldest()
        except DatabaseError as error:
            yield f"The database {relay.alias!r} cannot be read: {error}"
        else:
            if age > max_age:
                yield f"In the database {relay.alias!r} an entry has been due for {age:.0f} s. Is a relay running?"


def _missing_broker() -> Iterator[str]:
    executor: Any = get_configuration().executor or celery_executor
    # An executor that takes no names is not asked: it only knows the queues of given tasks.
    if (
        hasattr(executor, "accepts")
        and executor.accepts(_ANY_TASK)
        and (down := broker_error(executor, Intent(_ANY_TASK)))
    ):
        yield str(down)
