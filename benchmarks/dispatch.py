"""What a flush to Celery costs, as a multiple of a loop of `.delay()`, on brokers of this machine.

python benchmarks/dispatch.py            prints a table, in about two minutes
python benchmarks/dispatch.py --check    exits with 1 if a figure is below its reach
python benchmarks/dispatch.py --help     lists the options of pyperf, such as --fast and --rigorous

Redis and RabbitMQ are looked for where the tests look for them: `AIRLOCK_TEST_REDIS`, `AIRLOCK_TEST_RABBITMQ`, or their
usual ports. README.md says what came of it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import platform
import secrets
import statistics
import sys
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pyperf
from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

import airlock
from airlock.integrations.executors.celery import CeleryExecutor

if TYPE_CHECKING:
    from collections.abc import Callable

REDIS = os.environ.get("AIRLOCK_TEST_REDIS", "redis://127.0.0.1:6379/0")
RABBITMQ = os.environ.get("AIRLOCK_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")


@dataclass(frozen=True)
class Setup:
    """A broker, and how it is used."""

    broker: str
    results: str | None = None
    confirms: bool = False

    @cache  # noqa: B019 - there are a handful, and each is needed to the end
    def app(self) -> tuple[Celery, Any, CeleryExecutor]:
        app = Celery("benchmark", broker=self.broker, backend=self.results, set_as_current=False)
        app.conf.task_default_queue = f"benchmark-{secrets.token_hex(4)}"
        app.conf.broker_transport_options = {"confirm_publish": True} if self.confirms else {}
        return app, app.task(name="shop.notify", shared=False)(notify), CeleryExecutor(app)

    def empty(self, *, delete: bool = False) -> None:
        app, _, _ = self.app()
        with app.producer_or_acquire() as producer:
            name = app.conf.task_default_queue
            app.amqp.queues[name](producer.channel).declare()
            (producer.channel.queue_delete if delete else producer.channel.queue_purge)(name)

    def is_there(self) -> bool:
        with Connection(self.broker, connect_timeout=2) as connection:
            try:
                connection.ensure_connection(max_retries=0)
            except OperationalError:
                return False
        return True


def notify(order_id: int, retry: bool) -> None:
    """Nobody runs it."""


def one_by_one(setup: Setup, intents: int, loops: int) -> float:
    _, task, _ = setup.app()
    setup.empty()
    started = perf_counter()
    for _ in range(loops):
        for number in range(intents):
            task.delay(number, retry=True)
    spent = perf_counter() - started
    setup.empty()
    return spent


def flush(setup: Setup, intents: int, loops: int) -> float:
    _, task, executor = setup.app()
    setup.empty()
    started = perf_counter()
    for _ in range(loops):
        with airlock.scope(executor=executor):
            for number in range(intents):
                airlock.enqueue(task, number, retry=True)
    spent = perf_counter() - started
    setup.empty()
    return spent


@dataclass
class Comparison:
    what: str
    setup: Setup
    intents: int
    #: The lowest multiple to reach, or `None` if it is here for information.
    reach: float | None = None


COMPARISONS = [
    Comparison("Redis", Setup(REDIS), 1000, reach=2.5),
    Comparison("Redis", Setup(REDIS), 2, reach=1.1),
    Comparison("Redis, results too", Setup(REDIS, results=REDIS), 1000, reach=2.0),
    Comparison("Redis, results too", Setup(REDIS, results=REDIS), 2, reach=1.1),
    Comparison("RabbitMQ", Setup(RABBITMQ), 1000, reach=1.0),
    Comparison("RabbitMQ", Setup(RABBITMQ), 2, reach=0.9),
    Comparison("RabbitMQ, confirm_publish", Setup(RABBITMQ, confirms=True), 1000, reach=4.0),
    Comparison("RabbitMQ, confirm_publish", Setup(RABBITMQ, confirms=True), 2, reach=1.1),
]


def main() -> int:
    # The two take turns, so that they meet the same disturbances.
    runner = pyperf.Runner(values=10, warmups=2, processes=3, loops=1)
    runner.argparser.add_argument("--check", action="store_true", help="Exit with 1 if a figure is below its reach")
    options = runner.parse_args()
    if options.values % 2 or options.warmups % 2:
        runner.argparser.error("values and warmups must be even: they are those of the loop and of the flush by turns")

    show("", "intents", "delay()", "flush", "multiple", "reach", "reached")
    missed = 0
    for comparison in COMPARISONS:
        setup, intents = comparison.setup, comparison.intents
        if not options.worker and not setup.is_there():
            show(comparison.what, intents, "not there")
            continue
        # About so many messages in each value, whatever goes at a time.
        loops = max(1, 500 // intents)
        by_turns = itertools.cycle([partial(one_by_one, setup, intents), partial(flush, setup, intents)])
        with contextlib.redirect_stdout(io.StringIO()):  # pyperf would print the mean of both
            benchmark = runner.bench_time_func(
                f"{comparison.what}, {intents}",
                partial(take_turn, by_turns, loops),
                inner_loops=intents * loops,
                metadata={"description": "values are those of the loop and of the flush by turns"},
            )
        if options.worker:
            if benchmark is not None:
                setup.empty(delete=True)
            continue
        pairs = [pair for run in benchmark.get_runs() for pair in zip(run.values[0::2], run.values[1::2], strict=True)]
        alone, together = (statistics.median(values) for values in zip(*pairs, strict=True))
        multiple = statistics.median(alone / together for alone, together in pairs)
        reached = comparison.reach is None or multiple >= comparison.reach
        missed += not reached
        times = (f"{seconds * 1e6:.0f} us" for seconds in (alone, together))
        show(comparison.what, intents, *times, f"{multiple:.2f}", comparison.reach or "", "yes" if reached else "NO")
    if options.worker:
        return 0
    print(f"\nPython {platform.python_version()}, {platform.machine()}, {platform.system()}. Medians, per intent.")
    return 1 if options.check and missed else 0


def take_turn(by_turns: Any, inner: int, loops: int) -> float:
    measure: Callable[[int], float] = next(by_turns)
    return measure(loops * inner)


def show(what: str, *cells: object) -> None:
    # Not in the worker processes: what they would print is taken from them.
    if "--worker" not in sys.argv:
        print(f"{what:<28}" + "".join(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
