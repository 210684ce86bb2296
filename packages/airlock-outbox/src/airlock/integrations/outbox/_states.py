"""The states of an entry, as conditions for queries: what `due`, `lease`, `held` and `attempts` mean together.

An entry may be taken when `due` has come. Whoever takes it moves `due` forward by a lease and writes a token into
`lease`. Nobody else touches it until then. Who is done with it deletes it, or takes the token out again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import Case, CharField, DateTimeField, Exists, Func, OuterRef, Q, Value, When
from django.utils import timezone

from airlock.integrations.outbox.models import PausedTask

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper


class DatabaseNow(Func):
    """The time by the clock of the database, as all of its clients see it. SQLite has that of this machine."""

    template = "STATEMENT_TIMESTAMP()"
    output_field: Any = DateTimeField()

    def as_mysql(self, compiler: Any, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)

    def as_sqlite(self, compiler: Any, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        return compiler.compile(Value(timezone.now(), DateTimeField()))


#: What the `error` of an entry begins with, if it is not the fault of the entry as far as a relay knows.
LEFT = "left to the relay: "
#: How that goes on, if the broker is at fault.
BROKER_FAILS = "the broker fails"

#: Nobody will try again, unless asked to.
PARKED = Q(due__isnull=True)
#: It may be taken, unless its task is paused.
DUE = Q(due__lte=DatabaseNow())
#: A relay has failed to dispatch it, and will try again.
WAITING = Q(due__gt=DatabaseNow(), lease__isnull=True)
#: Nobody has it in hand. Who has it would dispatch it, whatever is done about it.
FREE = PARKED | DUE | WAITING

#: The states by their names. An entry is in the first of them that is true.
STATES: dict[str, Any] = {
    "parked": PARKED,
    "paused": DUE & Exists(PausedTask.objects.filter(task=OuterRef("task"))),
    "due": DUE,
    "waiting": WAITING,
    # If a relay has taken it over, it has tried.
    "held": Q(held=True, attempts=0),
}
#: The state of what is in none of these: a process or a relay is dispatching it.
IN_FLIGHT = "in flight"


def state() -> Case:
    """The name of the state of an entry, for a query."""
    cases = [When(condition, then=Value(name)) for name, condition in STATES.items()]
    return Case(*cases, default=Value(IN_FLIGHT), output_field=CharField())
