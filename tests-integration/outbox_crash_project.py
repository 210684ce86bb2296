"""The project of the crash test: what its processes enqueue, in random programs, and the journal they write to.

The journal is written before something is done. So it tells, together with the database, what had to arrive:

    E id scope,... t|a kind   enqueued: in these scopes (the innermost first), in a transaction or in autocommit
    X scope                   will be discarded
    D scope                   was discarded, and the table has none of its entries
    F scope                   has flushed, and owes nothing
    T                         begins a transaction
    K role step               is killed
    A                         the answer to a COMMIT is lost
    C                         the connections to the database are cut
    U error                   was not expected
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import django
from celery import Celery, Task
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.test import RequestFactory
from django.urls import path

import airlock

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

CONFIG: dict[str, Any] = json.loads(os.environ["OUTBOX_CRASH"])


# -- The project -------------------------------------------------------------------------------------------------------

app = Celery("crash", broker=CONFIG["broker"])
app.conf.update(task_default_queue=CONFIG["queue"], task_ignore_result=True)
# Messages are confirmed in any case. Calls would be left to the relay otherwise.
app.conf.update(broker_transport_options={"confirm_publish": True} if CONFIG["scheme"] == "amqp" else {})


class Overriding(Task):  # type: ignore[type-arg] # only for type checkers it is generic
    """Its tasks are recorded as calls, and not as messages."""

    def apply_async(self, *args: Any, **options: Any) -> Any:
        return super().apply_async(*args, **options)


@app.task(name="effect")
def effect(number: str) -> None: ...


@app.task(name="overriding", base=Overriding)
def overriding(number: str) -> None: ...


def configure() -> None:
    name = CONFIG["database"]["NAME"]
    settings.configure(
        SECRET_KEY="of a test",
        USE_TZ=True,
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {**CONFIG["database"], "CONN_MAX_AGE": None, "TEST": {"NAME": name}}},
        INSTALLED_APPS=["airlock.integrations.django", "airlock.integrations.outbox"],
        MIDDLEWARE=["airlock.integrations.django.AirlockMiddleware"],
        ROOT_URLCONF=__name__,
        AIRLOCK={"SCOPE": "airlock.integrations.outbox.OutboxScope", "OUTBOX": CONFIG["options"]},
        LOGGING_CONFIG=None,
    )
    django.setup()


# -- The journal -------------------------------------------------------------------------------------------------------

_journal = os.open(CONFIG["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(*words: str) -> None:
    """Write a line, in one piece, that outlives the process."""
    os.write(_journal, (" ".join(words) + "\n").encode())


# -- Random programs ---------------------------------------------------------------------------------------------------


class SomeError(Exception):
    """Ends a block, a request or a body."""


class Programs:
    """Runs one program after another, which enqueue within transactions, scopes, requests and bodies."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self._name = name
        self._rng = rng
        self._count = 0
        self._handler: Any = WSGIHandler()
        self._request = RequestFactory()

    def run(self) -> None:
        kind = self._rng.choices((self._scope_alone, self._scope_in_transaction, self._respond), (5, 1, 4))[0]
        try:
            kind()
        except SomeError:
            pass
        except (DatabaseError, InterfaceError):
            connection.close()  # as Django does at the end of a request
            time.sleep(0.05)  # while the database is down, there is not much to see
        except Exception as error:
            note("U", type(error).__name__, str(error).replace("\n", " ")[:300])
            connection.close()

    def _new_name(self) -> str:
        self._count += 1
        return f"{self._name}.{self._count}"

    # Boundaries

    def _scope_alone(self) -> None:
        with self._scope(()) as scopes:
            self._body(scopes, 0)

    def _scope_in_transaction(self) -> None:
        with self._transaction():
            self._scope_alone()
            if self._rng.random() < 0.3:
                raise SomeError

    @contextmanager
    def _scope(self, around: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        name = self._new_name()
        scope = airlock.scope()
        try:
            with scope:
                try:
                    yield (name, *around)
                except BaseException:
                    note("X", name)
                    raise
        finally:
            self._note_end(name, scope)

    def _note_end(self, name: str, scope: airlock.Scope) -> None:
        if scope.is_discarded:
            if connection.in_atomic_block or not self._has_entries(scope):
                note("D", name)
        elif scope.is_flushed and not scope.undispatched_intents:
            note("F", name)

    def _has_entries(self, scope: airlock.Scope) -> bool:
        from airlock.integrations.outbox.models import Entry

        try:
            return Entry.objects.filter(id__in=[intent.id for intent in scope.intents]).exists()
        except (DatabaseError, InterfaceError):
            return True

    def _respond(self) -> None:
        """Handle a request, as a WSGI server does."""
        name = self._new_name()
        global view
        view = lambda request: self._view(name, request)  # noqa: E731
        response: Any = self._handler(self._request.get("/").environ, lambda *_: None)
        parts = iter(response)
        left = self._rng.randint(0, 3) if self._rng.random() < 0.2 and response.streaming else None
        try:
            for _ in parts:
                if left == 0:
                    note("X", name)  # the client goes away
                    break
                left = left and left - 1
        finally:
            response.close()
            self._note_end(name, self._airlock_scope)

    def _view(self, name: str, request: Any) -> Any:
        self._airlock_scope = request.airlock_scope
        try:
            self._body((name,), 0)
            if self._rng.random() < 0.4:
                return StreamingHttpResponse(self._stream(name))
            if self._rng.random() < 0.1:
                note("X", name)
                return HttpResponse(status=409)
        except BaseException:
            note("X", name)
            raise
        return HttpResponse()

    def _stream(self, name: str) -> Iterator[bytes]:
        try:
            for _ in range(self._rng.randint(1, 3)):
                self._body((name,), 1)
                yield b"."
        except GeneratorExit:
            raise
        except BaseException:
            note("X", name)
            raise

    # What happens within

    def _body(self, scopes: tuple[str, ...], depth: int) -> None:
        steps: tuple[Callable[[tuple[str, ...], int], None], ...]
        steps = (self._enqueue, self._in_transaction, self._in_scope, self._fail)
        for _ in range(self._rng.randint(1, 3)):
            weights = (3, 5 - depth, 1 if depth < 3 else 0, 0.3)
            self._rng.choices(steps, weights)[0](scopes, depth + 1)

    def _enqueue(self, scopes: tuple[str, ...], _: int) -> None:
        for _ in range(self._rng.choice((1, 1, 1, 1, 2, 3, 8))):
            name = self._new_name()
            task = self._rng.choices((effect, effect.si(name), overriding), (8, 1, 1))[0]
            where = "t" if connection.in_atomic_block else "a"
            note("E", name, ",".join(scopes), where, "call" if task is overriding else "message")
            if connection.in_atomic_block:
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO crash_truth (name) VALUES (%s)", [name])
            airlock.enqueue(task, *(() if task not in (effect, overriding) else (name,)))

    def _in_transaction(self, scopes: tuple[str, ...], depth: int) -> None:
        try:
            with self._transaction():
                self._enqueue(scopes, depth)
                if depth < 4 and self._rng.random() < 0.5:
                    self._body(scopes, depth)
                if self._rng.random() < 0.15:
                    raise SomeError
                if self._rng.random() < 0.05:
                    transaction.set_rollback(True)
        except SomeError:
            if self._rng.random() < 0.2:
                raise
        except DatabaseError:
            if connection.in_atomic_block or self._rng.random() < 0.5:
                raise
            connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        is_outermost = not connection.in_atomic_block
        with transaction.atomic(savepoint=self._rng.random() < 0.9):
            if is_outermost:
                note("T")
            yield

    def _in_scope(self, scopes: tuple[str, ...], depth: int) -> None:
        with suppress(SomeError), self._scope(scopes) as inner:
            self._body(inner, depth)
            if self._rng.random() < 0.3:
                raise SomeError

    def _fail(self, scopes: tuple[str, ...], depth: int) -> None:
        raise SomeError


view: Callable[[Any], Any]
urlpatterns = [path("", lambda request: view(request))]
