"""The statements on the table of entries that writers make. Those of relays: `_leases.py`."""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from django.db import connections
from django.db.models.lookups import In
from django.utils import timezone

from airlock.integrations.outbox._states import DatabaseNow
from airlock.integrations.outbox._waking import notify
from airlock.integrations.outbox.models import VERSION, Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from airlock.integrations.outbox._record import Record

#: Rows of one statement. SQLite takes 32,766 parameters.
_ROWS = 1000
#: Of the payloads in one INSERT. MariaDB takes 16 MB by default.
_CHARACTERS = 3_000_000


def insert(alias: str, records: Sequence[Record], lease: UUID, seconds: float) -> None:
    """Write entries, due in so many seconds, on a connection that is about to commit, or in autocommit.

    As SQL of our own: it takes a fifth of the time of `bulk_create`, and that begins a transaction.

    Raises:
        django.db.DatabaseError: if the database refuses.
    """
    connection = connections[alias]
    now = timezone.now()
    adapt_time: Any = connection.ops.adapt_datetimefield_value
    has_uuids = connection.features.has_native_uuid_field
    due_params: list[Any] = []
    if connection.vendor == "postgresql":
        due = f"STATEMENT_TIMESTAMP() + INTERVAL '{seconds:f} seconds'"
    elif connection.vendor == "mysql":
        due = f"UTC_TIMESTAMP(6) + INTERVAL {seconds * 1e6:.0f} MICROSECOND"
    else:
        due = "%s"
        due_params = [adapt_time(now + timedelta(seconds=seconds))]
    # What is the same for all is no parameter: psycopg remembers how to read a statement that has at most fifty.
    row = f"(%s, %s, {due}, %s, '{_adapted(lease, connection)}', 0, %s, {VERSION}, %s, '')"
    columns = "(id, created, due, held, lease, attempts, task, version, payload, error)"
    with connection.cursor() as cursor:
        for batch in _statements(records):
            params: list[Any] = []
            for number, record in batch:
                created = adapt_time(now + timedelta(microseconds=number))
                entry_id = record.intent.id if has_uuids else record.intent.id.replace("-", "")
                params += (entry_id, created, *due_params)
                params += (not record.is_decided, record.intent.full_name[:255], record.payload)
            values = ", ".join([row] * len(batch))
            cursor.execute(f"INSERT INTO airlock_outbox {columns} VALUES {values}", params)  # noqa: S608


def _statements(records: Sequence[Record]) -> Iterator[list[tuple[int, Record]]]:
    """The records of each INSERT, with their numbers."""
    batch: list[tuple[int, Record]] = []
    size = 0
    for number, record in enumerate(records):
        if batch and (len(batch) == _ROWS or size + len(record.payload) > _CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append((number, record))
        size += len(record.payload)
    yield batch


class OneOf(In):
    """Whether a value is one of a list. On PostgreSQL that is one parameter: psycopg takes a while for each."""

    def as_postgresql(self, compiler: Any, connection: BaseDatabaseWrapper) -> tuple[str, list[Any]]:
        left, params = self.process_lhs(compiler, connection)
        return f"{left} = ANY(%s)", [*params, self.rhs]


def _adapted(value: UUID, connection: BaseDatabaseWrapper) -> Any:
    return value if connection.features.has_native_uuid_field else value.hex


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    """A database takes only so many parameters."""
    found = list(ids)
    for begin in range(0, len(found), _ROWS):
        yield found[begin : begin + _ROWS]


def _ours(alias: str, ids: Iterable[str], lease: UUID) -> Any:
    return Entry.objects.using(alias).filter(id__in=list(ids), lease=lease)


def delete(alias: str, ids: Iterable[str], lease: UUID) -> None:
    """Delete entries, if they are still ours."""
    connection = connections[alias]
    with connection.cursor() as cursor:  # as SQL of our own, too: a request waits for it
        for batch in _batches(ids):
            if connection.vendor == "postgresql":  # see OneOf
                is_one, params = "= ANY(%s::uuid[])", [batch]
            else:
                is_one = f"IN ({', '.join(['%s'] * len(batch))})"
                params = [_adapted(UUID(each), connection) for each in batch]
            statement = f"DELETE FROM airlock_outbox WHERE lease = %s AND id {is_one}"  # noqa: S608
            cursor.execute(statement, [_adapted(lease, connection), *params])


def let_go(alias: str, ids: Iterable[str], lease: UUID, errors: Mapping[str, str] = MappingProxyType({})) -> None:
    """Leave entries to the relay, if they are still ours. What has failed says why, by its id."""
    alike = defaultdict(list)
    for each in ids:
        alike[errors.get(each, "")].append(each)
    for error, with_error in alike.items():
        for batch in _batches(with_error):
            _ours(alias, batch, lease).update(held=False, lease=None, due=DatabaseNow(), error=storable(error))
    notify(alias)


def storable(error: str) -> str:
    """The begin of a text, without what PostgreSQL does not store."""
    return error[:5000].encode(errors="backslashreplace").decode().replace("\0", "\\0")


def decide(alias: str, ids: Iterable[str], lease: UUID) -> None:
    """Note that the scope of entries has flushed, if they are still ours."""
    for batch in _batches(ids):
        _ours(alias, batch, lease).update(held=False)


def renew(alias: str, ids: Iterable[str], lease: UUID, seconds: float) -> set[str]:
    """Hold entries for so many seconds more. Returns which of them are still ours."""
    ours: set[str] = set()
    for batch in _batches(ids):
        renewed = _ours(alias, batch, lease).update(due=DatabaseNow() + timedelta(seconds=seconds))
        if renewed == len(batch):
            ours.update(batch)
        else:
            ours.update(map(str, _ours(alias, batch, lease).values_list("id", flat=True)))
    return ours


_token = uuid4()


def our_lease() -> UUID:
    """The token that this process writes into `lease`."""
    return _token


def _be_another_process() -> None:
    global _token
    _token = uuid4()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows
    os.register_at_fork(after_in_child=_be_another_process)
