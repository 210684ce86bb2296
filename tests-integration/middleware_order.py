"""A site with one more middleware: `python -m middleware_order NAME airlock-first|airlock-last`.

Prints what came of a request or two, in JSON. Where the middleware belongs is told in `docs/boundaries.md`.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import django
from asgiref.sync import async_to_sync
from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path

import airlock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

OURS = "airlock.integrations.django.AirlockMiddleware"
APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "airlock.integrations.django"]

#: What the effects have seen.
seen: list[Any] = []


def effect(what: Any = "effect") -> None:
    seen.append(what() if callable(what) else what)


def configure(*middleware: str, ours_first: bool, view: Callable[..., Any], **given: Any) -> None:
    order = [OURS, *middleware] if ours_first else [*middleware, OURS]
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    apps = [*APPS, *given.pop("INSTALLED_APPS", [])]
    settings.configure(
        **{
            "SECRET_KEY": "of a test",
            "ALLOWED_HOSTS": ["*"],
            "DATABASES": {"default": database},
            "INSTALLED_APPS": apps,
            "MIDDLEWARE": order,
            "ROOT_URLCONF": (path("", view),),
            "AIRLOCK": {"EXECUTOR": "airlock.integrations.executors.sync.sync_executor"},
            "USE_TZ": True,
            **given,
        }
    )
    django.setup()


def get(headers: dict[str, str] | None = None, **extra: Any) -> Any:
    return Client(raise_request_exception=False, headers=headers).get("/", **extra)


def succeed(request: HttpRequest) -> HttpResponse:
    airlock.enqueue(effect)
    return HttpResponse("<html><body></body></html>")


def opentelemetry(ours_first: bool) -> list[str]:
    """The spans, in the order in which they end."""
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))

    def executor(intent: airlock.Intent) -> None:
        with tracers.get_tracer(__name__).start_as_current_span("dispatch"):
            pass

    configure(ours_first=ours_first, view=succeed, AIRLOCK={"EXECUTOR": executor})
    # Where it puts itself if nobody says anything is at the top.
    where = {"middleware_position": 1} if ours_first else {}
    DjangoInstrumentor().instrument(tracer_provider=tracers, **where)
    get()
    spans = exporter.get_finished_spans()
    (request,) = (span for span in spans if span.name != "dispatch")
    assert all(span.parent is None or span.parent.span_id == request.context.span_id for span in spans)
    return ["dispatch" if span.name == "dispatch" else "request" for span in spans]


def debug_toolbar(ours_first: bool) -> str:
    """What the page says of the effect: the button of the panel."""
    panel = "airlock.integrations.django.toolbar.AirlockPanel"
    configure(
        "debug_toolbar.middleware.DebugToolbarMiddleware",
        ours_first=ours_first,
        view=succeed,
        DEBUG=True,
        INSTALLED_APPS=["debug_toolbar", "django.contrib.staticfiles"],
        STATIC_URL="/static/",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        DEBUG_TOOLBAR_PANELS=[panel],
        DEBUG_TOOLBAR_CONFIG={"SHOW_TOOLBAR_CALLBACK": lambda request: True, "UPDATE_ON_FETCH": False},
    )
    from debug_toolbar.toolbar import debug_toolbar_urls

    settings.ROOT_URLCONF = (path("", succeed), *debug_toolbar_urls())
    (button,) = re.findall(r"<small>(.*?)</small>", get().text, re.DOTALL)
    return re.sub("<.*?>", "", button).strip()


def structlog(ours_first: bool) -> bool:
    """Whether Airlock's own line in the log has the request id."""
    import structlog

    bound: list[bool] = []

    class Bound(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            bound.append("request_id" in structlog.contextvars.get_contextvars())

    def fail(request: HttpRequest) -> HttpResponse:
        airlock.enqueue(effect)
        return HttpResponse(status=400)

    configure("django_structlog.middlewares.RequestMiddleware", ours_first=ours_first, view=fail)
    logging.getLogger("airlock").addHandler(Bound())
    logging.getLogger("airlock").setLevel(logging.INFO)
    get()
    return bound == [True]


def simple_history(ours_first: bool) -> list[Any]:
    """The user in the history, of an effect of a sync view and of one of an async view."""

    def historic_user() -> Any:
        from simple_history.models import HistoricalRecords

        request = getattr(HistoricalRecords.context, "request", None)
        return getattr(getattr(request, "user", None), "username", None)

    def view(request: HttpRequest) -> HttpResponse:
        airlock.enqueue(effect, historic_user)
        return HttpResponse()

    async def async_view(request: HttpRequest) -> HttpResponse:
        return view(request)

    sessions_and_users = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    history = "simple_history.middleware.HistoryRequestMiddleware"
    configure(ours_first=ours_first, view=view, INSTALLED_APPS=["simple_history"])
    ours = [OURS, history] if ours_first else [history, OURS]
    settings.MIDDLEWARE = [*sessions_and_users, *ours]
    settings.ROOT_URLCONF = (path("", view), path("async", async_view))
    from django.contrib.auth.models import User
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    client = Client()
    client.force_login(User.objects.create(username="ada"))
    client.get("/")

    async def get_async() -> None:
        async_client = AsyncClient()
        async_client.cookies = client.cookies
        await async_client.get("/async")

    async_to_sync(get_async)()
    return seen


def session(ours_first: bool) -> Any:
    """The status, and the effects of a request whose session cannot be saved."""
    from django.contrib.sessions.backends.cache import SessionStore

    def lose_session(request: HttpRequest) -> HttpResponse:
        airlock.enqueue(effect)
        request.session["cart"] = 1
        SessionStore(request.session.session_key).delete()
        return HttpResponse()

    configure(
        "django.contrib.sessions.middleware.SessionMiddleware",
        ours_first=ours_first,
        view=lose_session,
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
    )
    store = SessionStore()
    store.create()
    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = store.session_key
    return {"status": client.get("/").status_code, "effects": seen}


def _users(middleware: str, ours_first: bool) -> Any:
    """The status and the effects of a request that comes with a user, where the login has an effect."""

    def view(request: HttpRequest) -> HttpResponse:
        assert request.user.username == "ada"
        return HttpResponse()

    sessions = "django.contrib.sessions.middleware.SessionMiddleware"
    authentication = "django.contrib.auth.middleware.AuthenticationMiddleware"
    configure(ours_first=ours_first, view=view, AUTHENTICATION_BACKENDS=["middleware_order.Backend"])
    order = {
        ("authentication", True): [sessions, OURS, authentication],
        ("authentication", False): [sessions, authentication, OURS],
        ("remote user", True): [sessions, authentication, OURS, REMOTE_USER],
        ("remote user", False): [sessions, authentication, REMOTE_USER, OURS],
    }
    settings.MIDDLEWARE = order[middleware, ours_first]
    from django.contrib.auth.models import User
    from django.contrib.auth.signals import user_logged_in
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    client = Client(raise_request_exception=False)
    if middleware == "authentication":
        client.force_login(User.objects.create(username="ada"), backend="middleware_order.Backend")
        return {"status": client.get("/").status_code, "effects": seen}
    user_logged_in.connect(lambda **_: airlock.enqueue(effect, "logged in"), weak=False)
    return {"status": client.get("/", REMOTE_USER="ada").status_code, "effects": seen}


REMOTE_USER = "django.contrib.auth.middleware.RemoteUserMiddleware"


class Backend:
    """Knows everybody, and has an effect whenever it is asked for the user of a session."""

    def authenticate(self, request: HttpRequest, remote_user: str) -> Any:
        from django.contrib.auth.models import User

        return User.objects.get_or_create(username=remote_user)[0]

    def get_user(self, key: int) -> Any:
        from django.contrib.auth.models import User

        airlock.enqueue(effect, "asked for the user")
        return User.objects.get(pk=key)


def authentication(ours_first: bool) -> Any:
    return _users("authentication", ours_first)


def remote_user(ours_first: bool) -> Any:
    return _users("remote user", ours_first)


def conditional_get(ours_first: bool) -> Any:
    """The status and the effects of a streaming response that the client has already."""

    def body() -> Iterator[bytes]:
        airlock.enqueue(effect, "body")
        yield b"x"

    def view(request: HttpRequest) -> StreamingHttpResponse:
        airlock.enqueue(effect, "view")
        return StreamingHttpResponse(body(), headers={"ETag": '"1"'})

    configure("django.middleware.http.ConditionalGetMiddleware", ours_first=ours_first, view=view)
    response = get(headers={"If-None-Match": '"1"'})
    return {"status": response.status_code, "effects": seen}


def gzip_(ours_first: bool) -> Any:
    """The effects of a sync and an async streaming response, and of one that nobody reads to its end."""

    def enqueue_and_return(what: str) -> bytes:
        airlock.enqueue(effect, what)
        return what.encode() * 100

    def body() -> Iterator[bytes]:
        yield enqueue_and_return("first")
        yield enqueue_and_return("second")

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(body())

    async def async_view(request: HttpRequest) -> StreamingHttpResponse:
        async def async_body() -> AsyncIterator[bytes]:
            for chunk in body():
                yield chunk

        return StreamingHttpResponse(async_body())

    configure("django.middleware.gzip.GZipMiddleware", ours_first=ours_first, view=view)
    settings.ROOT_URLCONF = (path("", view), path("async", async_view))
    accepts = {"Accept-Encoding": "gzip"}
    whole = gzip.decompress(b"".join(get(headers=accepts)))
    assert whole == b"first" * 100 + b"second" * 100
    read = [*seen]
    seen.clear()

    async def read_async() -> bytes:
        response = await AsyncClient().get("/async", headers=accepts)
        return b"".join([chunk async for chunk in response])

    assert gzip.decompress(async_to_sync(read_async)()) == whole
    read_in_loop = [*seen]
    seen.clear()

    response = get(headers=accepts)
    next(iter(response))
    response.close()
    return {"read": read, "read async": read_in_loop, "left": [*seen]}


if __name__ == "__main__":
    sys.modules["middleware_order"] = sys.modules["__main__"]
    name, order = sys.argv[1:]
    sys.stdout.write(json.dumps(globals()[name](order == "airlock-first")))
