"""What Airlock costs, beside the least that anything of its kind could cost, measured in the same processes.

python benchmarks/run.py            prints a table, in about three minutes
python benchmarks/run.py --check    exits with 1 if a figure is beyond its reach
python benchmarks/run.py --help     lists the options of pyperf, such as --fast and --rigorous

README.md says what is measured against what, and what came of it.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import platform
import statistics
import sys
import tracemalloc
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from time import process_time
from typing import TYPE_CHECKING, Any

import pyperf

import airlock
from airlock.ext import subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from contextvars import Context

    #: Does something so many times, and returns the seconds (or bytes) that took.
    Measure = Callable[[int], float]


def task(number: int, retry: bool) -> None:
    """What is enqueued here; nobody ever calls it."""


def execute(intent: object) -> None:
    """The executor here, and the one call per object of the floor."""


# -- Enqueue and flush ---------------------------------------------------------------------------------------------

BATCH = 100  # intents in a scope


class Record:
    __slots__ = ("args", "context", "kwargs", "number", "task")

    def __init__(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: Context, number: int) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.context = context
        self.number = number


class BareRecord:
    __slots__ = ("args", "kwargs", "task")

    def __init__(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs


records: ContextVar[list[Any]] = ContextVar("records")
next_number = itertools.count().__next__


def record(task: Any, /, *args: Any, **kwargs: Any) -> Record:
    """The floor of `enqueue`."""
    made = Record(task, args, kwargs, copy_context(), next_number())
    records.get().append(made)
    return made


def record_without_context(task: Any, /, *args: Any, **kwargs: Any) -> BareRecord:
    """The same, for who does not care about order and context."""
    made = BareRecord(task, args, kwargs)
    records.get().append(made)
    return made


def record_and_call(loops: int) -> float:
    started = process_time()
    for _ in repeat(None, loops):
        records.set([])
        for _ in repeat(None, BATCH):
            record(task, 7, retry=True)
        for made in records.get():
            made.context.run(execute, made)
    return process_time() - started


def record_without_context_and_call(loops: int) -> float:
    started = process_time()
    for _ in repeat(None, loops):
        records.set([])
        for _ in repeat(None, BATCH):
            record_without_context(task, 7, retry=True)
        for made in records.get():
            execute(made)
    return process_time() - started


def enqueue_and_flush(loops: int) -> float:
    started = process_time()
    for _ in repeat(None, loops):
        with airlock.scope(executor=execute):
            for _ in repeat(None, BATCH):
                airlock.enqueue(task, 7, retry=True)
    return process_time() - started


def told(events: object) -> None:
    """A listener that does nothing."""


def enqueue_and_flush_heard(loops: int) -> float:
    end = subscribe(told)
    try:
        return enqueue_and_flush(loops)
    finally:
        end()


# -- An empty scope ------------------------------------------------------------------------------------------------

variable: ContextVar[object] = ContextVar("variable", default=None)


class Bare:
    """The floor of a scope."""

    def __enter__(self) -> Bare:
        self._token = variable.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        variable.reset(self._token)


class BareSlots:
    """The same, as fast as it can be written."""

    __slots__ = ("_token",)

    def __enter__(self) -> BareSlots:
        self._token = variable.set(self)
        return self

    def __exit__(self, exc_type: object, error: object, traceback: object) -> None:
        variable.reset(self._token)


@contextlib.contextmanager
def bare() -> Iterator[None]:
    """The same, as it is most often written."""
    token = variable.set(None)
    try:
        yield
    finally:
        variable.reset(token)


def bare_class(loops: int) -> float:
    started = process_time()
    for _ in repeat(None, loops):
        with Bare():
            pass
    return process_time() - started


def bare_class_with_slots(loops: int) -> float:
    started = process_time()
    for _ in repeat(None, loops):
        with BareSlots():
            pass
    return process_time() - started


def bare_generator(loops: int) -> float:
    started = process_time()
    for _ in repeat(None, loops):
        with bare():
            pass
    return process_time() - started


def empty_scope(loops: int) -> float:
    started = process_time()
    for _ in repeat(None, loops):
        with airlock.scope():
            pass
    return process_time() - started


# -- Nesting: the floor of any depth is depth 1 --------------------------------------------------------------------

MANY = 1000  # intents in the innermost scope


def open_scopes(depth: int) -> list[airlock.Scope]:
    return [airlock.scope(executor=execute).__enter__() for _ in range(depth)]


def close(scopes: list[airlock.Scope]) -> None:
    while scopes:
        scopes.pop().__exit__(None, None, None)


def intents_at(depth: int, loops: int) -> float:
    """Enqueueing in the innermost scope, and flushing the outermost. What lies between is `hand_overs_at`."""
    spent = 0.0
    for _ in repeat(None, loops):
        outermost, *nested = open_scopes(depth)
        started = process_time()
        for _ in repeat(None, MANY):
            airlock.enqueue(task, 7, retry=True)
        spent += process_time() - started
        close(nested)
        started = process_time()
        outermost.__exit__(None, None, None)
        spent += process_time() - started
    return spent


def hand_overs_at(depth: int, loops: int) -> float:
    """A scope with an intent, inside so many others."""
    spent = 0.0
    for _ in repeat(None, loops):
        around = open_scopes(depth)
        started = process_time()
        for _ in repeat(None, BATCH):
            with airlock.scope(executor=execute):
                airlock.enqueue(task, 7, retry=True)
        spent += process_time() - started
        close(around)
    return spent


# -- Transactions: the floor of a DjangoScope is a plain scope -----------------------------------------------------


def connect(databases: int) -> None:
    """Set Django up with so many databases, each of which was used before.

    Not before it is needed: what is measured without Django is measured in a process without Django.
    """
    import django
    from django.conf import settings
    from django.db import connections

    if not settings.configured:
        settings.configure(AIRLOCK={})
        django.setup()
        import airlock.integrations.django  # noqa: F401 - from now on, scopes respect transactions

        # Otherwise the garbage collector looks through all of Django now and then: while the subject is measured, or
        # the floor, as chance has it.
        gc.freeze()

    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    aliases = ["default", *range(1, databases)]
    connections.settings = connections.configure_settings({str(alias): {**sqlite} for alias in aliases})
    for connection in connections.all():
        connection.ensure_connection()


def enqueue_in_block(
    scope_cls: type[airlock.Scope], block: Callable[[], AbstractContextManager[object]], flushes: bool, loops: int
) -> float:
    """Enqueueing in a scope, in a block inside of it, and flushing the scope after that, if it `flushes`."""
    spent = 0.0
    for _ in repeat(None, loops):
        scope = airlock.scope(_cls=scope_cls, executor=execute)
        scope.enter()
        with block():
            started = process_time()
            for _ in repeat(None, MANY):
                airlock.enqueue(task, 7, retry=True)
            spent += process_time() - started
        scope.exit()
        if flushes:
            started = process_time()
            scope.flush()
            spent += process_time() - started
        else:
            scope.discard()
    return spent


class WithoutTransactions(airlock.Scope):
    """What a plain scope is in a process without Django."""

    transactional = False


def in_plain_scope(flushes: bool, loops: int) -> float:
    return enqueue_in_block(WithoutTransactions, contextlib.nullcontext, flushes, loops)


def in_django_scope(in_transaction: bool, databases: int, flushes: bool, loops: int) -> float:
    connect(databases)
    from django.db.transaction import atomic

    from airlock.integrations.django import DjangoScope

    return enqueue_in_block(DjangoScope, atomic if in_transaction else contextlib.nullcontext, flushes, loops)


# -- Savepoints: the floor is `on_commit` ---------------------------------------------------------------------------

ROWS = 16_000  # each in a savepoint of its own, with one effect


def savepoints(rows: int, effect: Callable[[int], object], loops: int) -> float:
    connect(databases=1)
    from django.db import connection
    from django.db.transaction import atomic

    spent = 0.0
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS item (number integer)")
        for _ in repeat(None, loops):
            started = process_time()
            with airlock.scope(executor=execute), atomic():
                for number in range(rows):
                    with atomic():
                        cursor.execute("INSERT INTO item VALUES (%s)", [number])
                        effect(number)
            spent += process_time() - started
            cursor.execute("DELETE FROM item")
    return spent


def enqueue_number(number: int) -> None:
    airlock.enqueue(task, number, retry=True)


def call_on_commit(number: int) -> None:
    from django.db.transaction import on_commit

    on_commit(lambda: task(number, retry=True))


# -- A long flush ----------------------------------------------------------------------------------------------------


LONG = 100_000  # intents in one flush


def flushes_of(intents: int, loops: int) -> float:
    """Enqueueing `LONG` intents, and flushing so many at a time."""
    started = process_time()
    for _ in repeat(None, loops * LONG // intents):
        with airlock.scope(executor=execute):
            for _ in repeat(None, intents):
                airlock.enqueue(task, 7, retry=True)
    return process_time() - started


# -- Memory --------------------------------------------------------------------------------------------------------

BUFFERED = 10_000


def memory_of_records(loops: int) -> float:
    records.set([])
    return allocated(partial(record, task, 7), loops)


def memory_of_intents(loops: int) -> float:
    with airlock.scope(airlock.DropAll()):
        return allocated(partial(airlock.enqueue, task, 7), loops)


def allocated(buffer: Callable[[], object], loops: int) -> float:
    tracemalloc.start()
    for _ in repeat(None, loops * BUFFERED):
        buffer()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size


# -- Measuring -----------------------------------------------------------------------------------------------------


@dataclass
class Comparison:
    what: str
    floor: Measure
    subject: Measure
    #: What is counted in one loop.
    per_loop: int = 1
    #: The highest ratio to reach, or the highest value if it is in bytes; `None` if it is here for information.
    reach: float | None = None
    unit: str = "second"
    #: Whether the difference counts, in seconds, and not the ratio.
    is_difference: bool = False


def at_depth(what: str, measure: Callable[[int, int], float], depth: int, per_loop: int) -> Comparison:
    reach = 1.3 if depth == 400 else None
    return Comparison(f"{what} at depth {depth}", partial(measure, 1), partial(measure, depth), per_loop, reach)


def in_django(databases: int, flushes: bool) -> Iterator[Comparison]:
    what = "enqueue and flush" if flushes else "enqueue"
    which = "1 database" if databases == 1 else f"{databases} databases"
    for where, in_transaction, reach in (("autocommit", False, 1.5), ("one atomic", True, 3.0)):
        yield Comparison(
            f"{what} in {where}, {which}",
            partial(in_plain_scope, flushes),
            partial(in_django_scope, in_transaction, databases, flushes),
            MANY,
            None if flushes else reach,
        )


COMPARISONS = [
    Comparison("enqueue and flush, per intent", record_and_call, enqueue_and_flush, BATCH, reach=1.2),
    Comparison("  beside objects without a context", record_without_context_and_call, enqueue_and_flush, BATCH),
    Comparison(
        "  heard, more than not heard",
        enqueue_and_flush,
        enqueue_and_flush_heard,
        BATCH,
        reach=1e-6,
        is_difference=True,
    ),
    Comparison("an empty scope", bare_class, empty_scope, reach=2.5),
    Comparison("  beside a class with slots", bare_class_with_slots, empty_scope),
    Comparison("  beside contextlib.contextmanager", bare_generator, empty_scope),
    *(at_depth("an intent", intents_at, depth, MANY) for depth in (10, 100, 400, 1000)),
    *(at_depth("a hand-over", hand_overs_at, depth, BATCH) for depth in (10, 100, 400, 1000)),
    *in_django(databases=1, flushes=False),
    *in_django(databases=2, flushes=False),
    *in_django(databases=1, flushes=True),
    Comparison(
        f"{ROWS} savepoints with an effect",
        partial(savepoints, ROWS, call_on_commit),
        partial(savepoints, ROWS, enqueue_number),
        ROWS,
        reach=1.5,
    ),
    Comparison(
        f"{2 * ROWS} of them beside {ROWS}",
        partial(savepoints, ROWS, enqueue_number),
        partial(savepoints, 2 * ROWS, enqueue_number),
        ROWS,
        reach=2.2,
    ),
    Comparison(
        f"a flush of {LONG} beside two of half as many",
        partial(flushes_of, LONG // 2),
        partial(flushes_of, LONG),
        LONG,
        reach=1.3,
    ),
    Comparison("memory per buffered intent", memory_of_records, memory_of_intents, BUFFERED, reach=360, unit="byte"),
]


def main() -> int:
    # A value takes no longer than that, so that floor and subject meet the same disturbances.
    runner = pyperf.Runner(values=18, warmups=2, processes=6, min_time=0.01)
    runner.argparser.add_argument("--check", action="store_true", help="Exit with 1 if a figure is beyond its reach")
    options = runner.parse_args()
    if options.values % 2 or options.warmups % 2:
        runner.argparser.error("values and warmups must be even: they are the floor's and the subject's by turns")

    show("", "floor", "subject", "ratio", "reach", "reached")
    missed = 0
    for comparison in COMPARISONS:
        by_turns = itertools.cycle([comparison.floor, comparison.subject])
        with contextlib.redirect_stdout(io.StringIO()):  # pyperf would print the mean of both
            benchmark = runner.bench_time_func(
                comparison.what.strip(),
                lambda loops, by_turns=by_turns: next(by_turns)(loops),
                inner_loops=comparison.per_loop,
                metadata={"unit": comparison.unit, "description": "values are the floor's and the subject's by turns"},
            )
        if benchmark is None or options.worker:
            continue
        pairs = [pair for run in benchmark.get_runs() for pair in zip(run.values[0::2], run.values[1::2], strict=True)]
        missed += not show_comparison(comparison, pairs)

    if options.worker:
        return 0
    print(f"\nPython {platform.python_version()}, {platform.machine()}, {platform.system()}. Medians; lower is better.")
    return 1 if options.check and missed else 0


def show_comparison(comparison: Comparison, pairs: list[tuple[float, float]]) -> bool:
    """Print a row of the table, and tell whether nothing is amiss with it."""
    floor, subject = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(subject / floor for floor, subject in pairs)
    more = statistics.median(subject - floor for floor, subject in pairs)
    reach = comparison.reach
    if comparison.unit == "byte":
        cells = f"{floor:.0f} B", f"{subject:.0f} B", f"{ratio:.2f}", f"{reach:.0f} B"
        reached = subject <= reach
    elif comparison.is_difference:
        cells = *map(nanoseconds, (floor, subject)), f"+{nanoseconds(more)}", f"+{nanoseconds(reach)}"
        reached = more <= reach
    else:
        cells = *map(nanoseconds, (floor, subject)), f"{ratio:.2f}", "" if reach is None else f"{reach:.1f}"
        reached = reach is None or ratio <= reach
    show(comparison.what, *cells, "" if reach is None else "yes" if reached else "NO")
    return reached


def nanoseconds(seconds: float) -> str:
    return f"{seconds * 1e9:.0f} ns"


def show(what: str, *cells: str) -> None:
    # Not in the worker processes: what they would print is taken from them.
    if "--worker" not in sys.argv:
        print(f"{what:<42}" + "".join(f"{cell:>9}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
