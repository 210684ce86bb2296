"""System checks: the options, what is recorded, and the databases and the broker that are to keep it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.db.migrations.loader import MigrationLoader

import airlock
from airlock.integrations.executors.celery import CeleryExecutor
from airlock.integrations.outbox._recording import name_of_executor
from airlock.integrations.outbox._scope import OutboxScope
from airlock.integrations.outbox._settings import problems
from airlock.integrations.outbox.models import Entry, InboxEntry

#: The shortest hold that no request is likely to outlive, in seconds.
_SHORTEST_HOLD = 60

_TABLES = ("airlock_outbox", "airlock_inbox", "airlock_outbox_paused")
#: Kombu's names of what speaks with RabbitMQ.
_RABBITMQ = ("amqp", "amqps", "pyamqp", "librabbitmq")
#: And of what speaks with Redis.
_REDIS = ("redis", "rediss", "redis+socket", "sentinel")

_IMMEDIATE = """"OPTIONS": {"transaction_mode": "IMMEDIATE"}"""
_WAL = """"OPTIONS": {"init_command": "PRAGMA journal_mode=WAL"}"""
_OLD_DJANGO = django.VERSION < (5, 1)


def _warning(number: int, message: str, hint: str, alias: str | None = None) -> checks.CheckMessage:
    return checks.Warning(message, hint=hint, obj=alias, id=f"airlock.outbox.W{number:03}")


def _error(number: int, message: str, hint: str) -> checks.CheckMessage:
    return checks.Error(message, hint=hint, id=f"airlock.outbox.E{number:03}")


def _given() -> Mapping[str, Any]:
    """The setting; nothing if it is no dictionary, which the check of airlock-django says."""
    given = getattr(settings, "AIRLOCK", {})
    given = given.get("OUTBOX", {}) if isinstance(given, Mapping) else {}
    return given if isinstance(given, Mapping) else {}


def check_options(**_: Any) -> list[checks.CheckMessage]:
    """Errors for what makes `AIRLOCK["OUTBOX"]` unusable, and a warning for a hold that is too short."""
    if found := problems(_given()):
        return [_error(1, problem, hint) for problem, hint in found]
    hold = _given().get("HOLD_SECONDS", _SHORTEST_HOLD)
    if hold < _SHORTEST_HOLD:
        return [
            _warning(
                1,
                f"AIRLOCK['OUTBOX']['HOLD_SECONDS'] is {hold}, and a request may last longer.",
                "If its process is too busy to renew the hold, a relay dispatches what the request may yet discard. "
                f"Make it {_SHORTEST_HOLD} or more.",
            )
        ]
    return []


def _scope() -> airlock.Scope | None:
    """A scope as `airlock.scope()` makes it. `None` if it cannot be made, which the check of airlock-django says."""
    try:
        return airlock.scope()
    except (ImproperlyConfigured, TypeError):
        return None


def _executor() -> Any:
    """The executor that dispatches what the outbox has, if there is an outbox."""
    scope = _scope()
    return scope.outbox_executor.inner if isinstance(scope, OutboxScope) else None


def check_scope(**_: Any) -> list[checks.CheckMessage]:
    """A warning if nothing is recorded, and an error if what is recorded names no executor."""
    scope = _scope()
    if scope is None:
        return []
    if not isinstance(scope, OutboxScope):
        return [
            _warning(
                2,
                "The outbox is installed, but scopes do not record anything in it.",
                'Set AIRLOCK["SCOPE"] to "airlock.integrations.outbox.OutboxScope", or to a subclass.',
            )
        ]
    try:
        name_of_executor(scope.outbox_executor.inner)
    except airlock.UsageError as error:
        problem, hint = str(error).split(": ", 1)
        return [_error(2, f"{problem}.", f"{hint[:1].upper()}{hint[1:]}")]
    return []


def has_app(executor: CeleryExecutor) -> bool:
    """Whether the Celery app of the project is loaded. That has a name, or at least a broker."""
    return executor.app.main != "default" or bool(executor.app.conf.broker_url)


def check_broker(**_: Any) -> list[checks.CheckMessage]:
    """Warnings for a broker that loses what it has accepted, or is waited for without end. It is not asked."""
    executor = _executor()
    if not isinstance(executor, CeleryExecutor) or not has_app(executor):
        return []
    conf = executor.app.conf
    with executor.app.connection_for_write() as connection:
        transport: Any = connection.transport_cls
    why = None
    if transport == "memory":
        why = "keeps messages in the memory of this process"
    elif transport == "filesystem":
        why = "deletes a message before its task has run"
    elif transport in _RABBITMQ and conf.task_default_delivery_mode in (1, "transient"):
        why = "is told to keep messages in memory, by task_default_delivery_mode"
    if why is None and transport in _RABBITMQ and not (conf.broker_transport_options or {}).get("confirm_publish"):
        return [
            _warning(
                10,
                "Chords, tasks that override apply_async, and what has options that say how to reach the broker are "
                "left to the relay, as Celery does not have RabbitMQ confirm them. The relay as a Celery task does not "
                "either: their entries are deleted when the message was written to the connection, which may break.",
                'Set broker_transport_options = {"confirm_publish": True}. If you have none of these, or if '
                "`manage.py airlock_relay` is the relay and they may wait for it, silence this check.",
            )
        ]
    if transport in _REDIS and not (conf.broker_transport_options or {}).get("socket_timeout"):
        return [
            _warning(
                11,
                "A Redis that accepts connections and never answers is waited for without end: by a request, for a "
                "task that overrides apply_async; and in threads, for other tasks. After five of these, the process "
                "leaves all that it enqueues to the relay, also when Redis is back.",
                'Set broker_transport_options = {"socket_timeout": 10, "socket_connect_timeout": 10}.',
            )
        ]
    if why is None:
        return []
    return [
        _warning(
            3,
            f"The broker ({transport}) {why}, so it may lose what the outbox has handed over.",
            "Use a broker that keeps messages on disk, such as RabbitMQ, or Redis with its append-only file. "
            "In development and tests, silence this check.",
        )
    ]


def _aliases_with_tables() -> list[str]:
    return [alias for alias in connections if router.allow_migrate_model(alias, Entry)]


def check_routers(**_: Any) -> list[checks.CheckMessage]:
    """An error if no database may have the tables, and warnings for those that are written to and may not."""
    allowed = _aliases_with_tables()
    hint = "Have allow_migrate() of your DATABASE_ROUTERS return True for the app airlock_outbox and this database."
    if not allowed:
        return [_error(3, "No database may have the tables of the outbox, so nothing is recorded.", hint)]
    messages = []
    for model in (Entry, InboxEntry):
        alias = router.db_for_write(model)
        if alias not in allowed:
            messages.append(_error(4, f"{model.__name__} is written to {alias!r}, which may not have its table.", hint))
    written = {router.db_for_write(model) for model in apps.get_models()}
    messages += [
        _warning(
            4,
            f"{alias!r} may not have the tables of the outbox, so what its transactions enqueue is not recorded.",
            f"{hint} If nothing is enqueued in transactions of this database alone, silence this check.",
            alias,
        )
        for alias in connections
        if alias in written and alias not in allowed
    ]
    return messages


def _is_in_memory(connection: Any) -> bool:
    name = str(connection.settings_dict["NAME"])
    return not name or name == ":memory:" or "mode=memory" in name


def check_sqlite(**_: Any) -> list[checks.CheckMessage]:
    """Warnings for SQLite databases whose transactions may fail when they want to write."""
    messages = []
    for alias in _aliases_with_tables():
        connection = connections[alias]
        if connection.vendor != "sqlite" or _is_in_memory(connection):
            continue
        mode = connection.settings_dict["OPTIONS"].get("transaction_mode")
        if _OLD_DJANGO:
            is_right = connection.settings_dict["ENGINE"] != "django.db.backends.sqlite3"
            hint = f"From Django 5.1 on, set {_IMMEDIATE}. Before, it takes a database engine of your own."
        else:
            is_right = str(mode).upper() in ("IMMEDIATE", "EXCLUSIVE")
            hint = f"Set {_IMMEDIATE} in DATABASES[{alias!r}]."
        if not is_right:
            messages.append(
                _warning(
                    5,
                    f"Transactions of the SQLite database {alias!r} begin as readers. One that has only read may find, "
                    "when the outbox writes before its COMMIT, that another one was faster, and fail.",
                    hint,
                    alias,
                )
            )
    return messages


def check_notify(**_: Any) -> list[checks.CheckMessage]:
    """A warning for `NOTIFY` where relays cannot be woken."""
    if _given().get("NOTIFY") is not True:
        return []
    messages = []
    for alias in _aliases_with_tables():
        why = _why_not_woken(connections[alias])
        if why:
            messages.append(
                _warning(
                    6,
                    f"AIRLOCK['OUTBOX']['NOTIFY'] is True, and does nothing on {alias!r}: {why}.",
                    "Remove it, and relays look every POLL_SECONDS.",
                    alias,
                )
            )
    return messages


def _why_not_woken(connection: Any) -> str | None:
    if connection.vendor != "postgresql":
        return f"it is {connection.display_name}, and not PostgreSQL"
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return None if is_psycopg3 else "psycopg 2 cannot wait for a notification. Install psycopg 3"


def check_databases(*, databases: Sequence[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Ask databases whether they are migrated, and fit for an outbox: `manage.py check --database default`.

    All of it is warnings. An error would keep `migrate` from doing something about it.
    """
    asked = set(databases or ())
    return [
        message
        for alias in _aliases_with_tables()
        if alias in asked
        for ask in (_ask_for_tables, _ask_sqlite, _ask_mysql)
        for message in ask(alias, connections[alias])
    ]


def _ask_for_tables(alias: str, connection: Any) -> Iterator[checks.CheckMessage]:
    tables = set(connection.introspection.table_names())
    missing = [table for table in _TABLES if table not in tables]
    loader = MigrationLoader(connection)
    unapplied = [name for name in loader.graph.leaf_nodes("airlock_outbox") if name not in loader.applied_migrations]
    if missing or unapplied:
        what = f"lacks {', '.join(missing)}" if missing else f"lacks the migration {unapplied[0][1]}"
        yield _warning(
            7,
            f"The database {alias!r} {what}, so transactions that enqueue fail there.",
            f"Run: manage.py migrate airlock_outbox --database {alias}",
            alias,
        )


def _ask_sqlite(alias: str, connection: Any) -> Iterator[checks.CheckMessage]:
    if connection.vendor != "sqlite" or _is_in_memory(connection):
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        mode = cursor.fetchone()[0]
    if mode.lower() != "wal":
        hint = f"Set {_WAL} in DATABASES[{alias!r}]."
        if _OLD_DJANGO:
            hint = "Once, execute: PRAGMA journal_mode=WAL. The file remembers it."
        yield _warning(
            8,
            f"The SQLite database {alias!r} has the journal mode {mode!r}, in which readers and writers wait for each "
            "other.",
            hint,
            alias,
        )


def _ask_mysql(alias: str, connection: Any) -> Iterator[checks.CheckMessage]:
    if connection.vendor == "mysql" and not connection.features.has_select_for_update_skip_locked:
        name, first = ("MariaDB", "10.6") if connection.mysql_is_mariadb else ("MySQL", "8.0.1")
        version = ".".join(map(str, connection.mysql_version))
        yield _warning(
            9,
            f"The database {alias!r} is {name} {version}, which has no SKIP LOCKED: relays wait for each other.",
            f"Use {name} {first} or later, or keep a single relay.",
            alias,
        )
