"""The panel for the Django Debug Toolbar shows what became of each intent of a request, and why."""

import gc
import os
import re
import threading
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import run_checks
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished
from django.db import close_old_connections
from django.db.transaction import atomic
from django.http import HttpResponse, HttpResponseNotModified, JsonResponse, StreamingHttpResponse
from django.test import Client
from django.urls import path

import airlock
from airlock import BlockTasks, DropAll
from airlock.ext import Event, is_heard, tell
from airlock.integrations.django import DjangoScope
from processes import free_port
from services import RUN

OURS = "airlock.integrations.django.AirlockMiddleware"
TOOLBARS = "debug_toolbar.middleware.DebugToolbarMiddleware"
PANEL = "airlock.integrations.django.toolbar.AirlockPanel"

pytestmark = [pytest.mark.django_db(transaction=True)]


class Row(NamedTuple):
    """What the panel shows of one intent."""

    intent: str
    place: str
    events: list[str]
    boundary: list[str]
    #: What it shows when unfolded.
    details: str
    #: What is emphasized: the class of the styles, and the text.
    emphasized: list[tuple[str, str]]


class Answer(NamedTuple):
    """What a browser gets."""

    headers: dict[str, str]
    body: bytes


class Toolbar:
    """A site with the toolbar, and what a browser that shows the toolbar asks for."""

    def __init__(self, server, settings):
        self.server = server
        self.settings = settings

    def serve(self, view):
        from debug_toolbar.toolbar import debug_toolbar_urls

        self.settings.ROOT_URLCONF = (path("", view), path("other", view), *debug_toolbar_urls())

    def get(self, view, query=""):
        self.serve(view)
        if self.server == "ASGI":
            return async_to_sync(self._get_async)(query)
        response = Client(raise_request_exception=False).get(f"/?{query}")
        return Answer(response.headers, b"".join(response))

    async def _get_async(self, query):
        # Django's test client closes the response in another thread than the servers do.
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": query.encode(),
            "headers": [(b"host", b"testserver")],
            "client": ["127.0.0.1", 0],
        }
        server = ApplicationCommunicator(ASGIHandler(), scope)
        await server.send_input({"type": "http.request"})
        start = await server.receive_output(30)
        body, more = b"", True
        while more:
            message = await server.receive_output(30)
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await server.wait(30)
        return Answer({name.decode().lower(): value.decode() for name, value in start["headers"]}, body)

    def content(self, response):
        """The panel of a request, fetched as when somebody clicks on it."""
        shown = self._ask("render_panel", response, panel_id="AirlockPanel")
        return ET.fromstring(f"<div>{shown['content']}</div>")

    def rows(self, response):
        rows = self.content(response).findall(".//table[@class='airlock-intents']/tbody/tr")
        return [self._row(*pair) for pair in zip(rows[::2], rows[1::2], strict=True)]

    def button(self, response):
        """The text of the button in the side bar, and that of it which is red."""
        button = self.side_bar(response)["AirlockPanel"]["button"]
        small = ET.fromstring(re.findall(r"<small>.*</small>", button, re.DOTALL)[0])
        return text(small), [text(each) for each in small.findall(".//*[@class='airlock-bad']")]

    def side_bar(self, response):
        return self._ask("history_sidebar", response)

    def _ask(self, what, response, **parameters):
        # Version 5 of the toolbar has other names.
        for header, parameter in ("djdt-request-id", "request_id"), ("djdt-store-id", "store_id"):
            if header in response.headers:
                parameters[parameter] = response.headers[header]
        return Client().get(f"/__debug__/{what}/", parameters).json()

    def _row(self, shown, unfolded):
        _, intent, outcome, boundary = shown
        name, place = intent
        events = [text(event) for event in outcome.iter("li")]
        levels = [each for cell in (outcome, boundary) for tag in ("li", "div") for each in cell.iter(tag)]
        return Row(
            text(name),
            text(place),
            [without_time(event) for event in events],
            [text(each) for each in boundary],
            text(unfolded),
            [(each.get("class"), without_time(text(each))) for each in levels if each.get("class")],
        )


def text(element):
    return " ".join("".join(element.itertext()).split())


def without_time(event):
    return event.partition(" ms ")[2] or event


@pytest.fixture(params=["WSGI", "ASGI"])
def toolbar(request, settings):
    settings.DEBUG = True
    settings.INTERNAL_IPS = ["127.0.0.1"]
    settings.STATIC_URL = "/static/"
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles", "debug_toolbar"]
    settings.MIDDLEWARE = [TOOLBARS, OURS]
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
    settings.DEBUG_TOOLBAR_PANELS = ["debug_toolbar.panels.history.HistoryPanel", PANEL]
    settings.DEBUG_TOOLBAR_CONFIG = {"RENDER_PANELS": False}
    request_finished.disconnect(close_old_connections)  # as the test client does
    yield Toolbar(request.param, settings)
    request_finished.connect(close_old_connections)
    assert not is_heard(), "somebody still listens"


def send(*args, **kwargs): ...


def answering(function, response=HttpResponse):
    """A view that calls a function."""

    def view(request):
        function()
        return response("<html><body></body></html>")

    return view


# What it shows


def test_shows_task_arguments_line_scope_and_transaction_of_what_went_out(toolbar):
    def place_order():
        with atomic():
            airlock.enqueue(send, 42, email="ada@example.com")

    (row,) = toolbar.rows(toolbar.get(answering(place_order)))

    line = place_order.__code__.co_firstlineno + 2
    assert row.intent == "send(42, email='ada@example.com')"
    assert row.place == f"tests/test_toolbar.py:{line} in place_order"
    assert row.events == ["enqueued", "dispatched"]
    assert row.boundary[0].startswith("DjangoScope ")
    assert row.boundary[1:] == ["the transaction on 'default'", "no policy"]


def test_times_are_counted_from_the_begin_of_the_request(toolbar):
    response = toolbar.get(answering(lambda: airlock.enqueue(send)))
    shown = toolbar.content(response).findall(".//*[@class='airlock-at']")
    times = [float(text(each).removesuffix(" ms")) for each in shown]

    assert len(times) == 2
    assert 0 <= times[0] <= times[1]


def test_shows_which_policy_has_dropped_it(toolbar):
    def announce():
        with airlock.policy(BlockTasks({"other"})), airlock.policy(DropAll()):
            airlock.enqueue(send)

    (row,) = toolbar.rows(toolbar.get(answering(announce)))

    assert row.events == ["enqueued", "dropped by DropAll()"]
    assert row.boundary[1:] == ["no transaction", "DropAll()", "BlockTasks(['other'], raise_on_enqueue=False)"]
    assert row.emphasized == [("airlock-withheld", "dropped by DropAll()"), ("airlock-withheld", "DropAll()")]


def test_shows_which_savepoint_it_was_rolled_back_with(toolbar, rolled_back):
    def book():
        with atomic(), rolled_back():
            airlock.enqueue(send)

    response = toolbar.get(answering(book))
    (row,) = toolbar.rows(response)

    assert row.boundary[1].startswith("the savepoint s")
    assert row.events == ["enqueued", f"rolled back with {row.boundary[1]}"]
    assert toolbar.button(response) == ("1 rolled back", [])


def test_shows_why_it_was_discarded(toolbar):
    def decline(request):
        airlock.enqueue(send)
        return JsonResponse({}, status=402)

    def crash(request):
        airlock.enqueue(send)
        raise LookupError

    (declined,), (crashed,) = (toolbar.rows(toolbar.get(view)) for view in (decline, crash))

    assert declined.events == ["enqueued", "discarded, because the response has the status 402"]
    assert crashed.events[0] == "enqueued"
    assert "500" in crashed.events[1]


def test_shows_the_error_of_a_failure_in_red(toolbar):
    def fail():
        raise ConnectionError("no route <to> host")

    def pay():
        airlock.enqueue(send)
        airlock.enqueue(fail)

    response = toolbar.get(answering(pay))
    _, row = toolbar.rows(response)

    why = "failed: ConnectionError('no route <to> host')"
    assert row.events == ["enqueued", why]
    assert row.emphasized == [("airlock-bad", why)]
    assert toolbar.button(response) == ("1 failed, 1 dispatched", ["1 failed"])


class Refusing:
    def prepare(self, intent, fates):
        raise ValueError("no JSON")

    def __call__(self, intent): ...


def test_shows_what_the_executor_has_refused_and_why(toolbar):
    toolbar.settings.AIRLOCK = {"EXECUTOR": Refusing()}

    def pay():
        with suppress(ValueError):
            airlock.enqueue(send)

    (row,) = toolbar.rows(toolbar.get(answering(pay)))

    assert row.events == ["enqueued", "failed: refused by the executor: ValueError: no JSON"]


def test_shows_which_scope_has_captured_it(toolbar):
    def nest():
        airlock.enqueue(send, 1)
        with airlock.scope():
            airlock.enqueue(send, 2)

    outer, inner = toolbar.rows(toolbar.get(answering(nest)))

    assert inner.boundary[0] != outer.boundary[0]
    assert inner.events == ["enqueued", f"captured by {outer.boundary[0]}", "dispatched"]


def test_what_is_detached_hangs_on_no_transaction(toolbar, rolled_back):
    def warn():
        with rolled_back(), airlock.detached():
            airlock.enqueue(send)

    (row,) = toolbar.rows(toolbar.get(answering(warn)))

    assert row.boundary[1] == "no transaction"
    assert row.events[-1] == "dispatched"


def test_shows_what_the_outbox_has_left_to_the_relay(toolbar):
    class Leaving:
        tells_of_dispatched = True

        def __call__(self, intent):
            tell([Event("stored", intent, reason="left to the relay")])

    toolbar.settings.AIRLOCK = {"EXECUTOR": Leaving()}
    response = toolbar.get(answering(lambda: airlock.enqueue(send)))
    (row,) = toolbar.rows(response)

    assert row.events == ["enqueued", "stored: left to the relay"]
    assert toolbar.button(response) == ("1 stored", [])


def test_redactor_decides_what_is_shown_of_arguments(toolbar):
    toolbar.settings.AIRLOCK = {"REDACTOR": lambda intent: f"{intent.name}(...)"}
    secret = "4" + "111"
    (row,) = toolbar.rows(toolbar.get(answering(lambda: airlock.enqueue(send, secret))))

    assert row.intent == "send(...)"
    assert "4111" not in str(row)


def test_unfolds_name_options_and_the_stack_down_to_the_call(toolbar):
    def pay():
        airlock.enqueue(send, 42, _dispatch_options={"countdown": 60})

    (row,) = toolbar.rows(toolbar.get(answering(pay)))

    assert ".send, id " in row.details
    assert "countdown=60" in row.details
    line = pay.__code__.co_firstlineno + 1
    call = 'airlock.enqueue(send, 42, _dispatch_options={"countdown": 60})'
    assert row.details.endswith(f"test_toolbar.py in pay({line}) {call}")


def test_shows_the_line_without_stacks_and_origins_too(toolbar):
    toolbar.settings.DEBUG_TOOLBAR_CONFIG = {"RENDER_PANELS": False, "ENABLE_STACKTRACES": False}
    toolbar.settings.AIRLOCK = {"CAPTURE_ORIGIN": False}

    def pay():
        airlock.enqueue(send)
        airlock.enqueue(send, _origin="the till")

    first, second = toolbar.rows(toolbar.get(answering(pay)))

    assert first.place == f"tests/test_toolbar.py:{pay.__code__.co_firstlineno + 1} in pay"
    assert second.place == "the till in pay"
    assert "in pay" not in first.details


def test_says_that_nothing_was_enqueued(toolbar):
    response = toolbar.get(answering(lambda: None))

    assert toolbar.rows(response) == []
    assert toolbar.button(response) == ("no intents", [])


def test_button_counts_each_kind_of_end(toolbar):
    def announce():
        for number in range(3):
            airlock.enqueue(send, number)
        with airlock.policy(DropAll()):
            airlock.enqueue(send)

    assert toolbar.button(toolbar.get(answering(announce))) == ("3 dispatched, 1 dropped", [])


def test_page_has_the_button(toolbar):
    response = toolbar.get(answering(lambda: airlock.enqueue(send)))

    assert "1 dispatched" in response.body.decode()


# What it shows of everything else


class Counting(LocMemCache):
    """A cache that counts how often it is read."""

    reads = 0

    def get_many(self, *args, **kwargs):
        Counting.reads += 1
        return super().get_many(*args, **kwargs)


@pytest.fixture
def remembering(toolbar):
    """What was kept back is remembered."""
    toolbar.settings.CACHES = {"default": {"BACKEND": f"{__name__}.Counting", "LOCATION": f"{RUN} toolbar"}}
    toolbar.settings.AIRLOCK = {"EXPLAIN": {}, "CAPTURE_ORIGIN": True}
    yield toolbar
    toolbar.settings.AIRLOCK = {}  # so that nobody listens any more
    caches["default"].clear()


def elsewhere(toolbar, response):
    """The rows about everything else, and what is said around them."""
    content = toolbar.content(response)
    rows = content.findall(".//table[@class='airlock-others']/tbody/tr")
    return [[text(cell) for cell in row] for row in rows], text(content)


def remembered(toolbar, response):
    """The rows about everything else, as soon as there are some: they are written in the background."""
    deadline = time.monotonic() + 60
    while not (rows := elsewhere(toolbar, response)[0]):
        assert time.monotonic() < deadline
    return rows


def declining(status=402):
    def decline(request):
        airlock.enqueue(send, 4111)
        return JsonResponse({}, status=status)

    return decline


def test_shows_what_other_requests_have_kept_back(remembering):
    remembering.get(declining())
    ((why, what),) = remembered(remembering, remembering.get(answering(lambda: None)))

    assert why.startswith("discarded, because the response has the status 402 2")
    assert ", DjangoScope " in why
    assert f"process {os.getpid()} on " in why
    assert re.fullmatch(r"\S+send tests/test_toolbar.py:\d+ id \S{36}", what)


def test_shows_what_processes_without_a_page_have_kept_back(remembering):
    with airlock.scope(DropAll()):
        airlock.enqueue(send)
    ((why, _),) = remembered(remembering, remembering.get(answering(lambda: None)))

    assert why.startswith("dropped by DropAll()")


def test_shows_what_a_relay_has_sent_late(remembering):
    why = "its process did not finish: the relay took it over and sent it"
    tell([Event("relayed", airlock.Intent(send), reason=why)])
    ((shown, _),) = remembered(remembering, remembering.get(answering(lambda: None)))

    assert shown.startswith(why)


def test_does_not_show_the_same_twice(remembering):
    first = remembering.get(declining(402))
    second = remembering.get(declining(403))
    remembered(remembering, first)
    remembered(remembering, second)

    assert ["status 403" in why for why, _ in elsewhere(remembering, first)[0]] == [True]
    assert ["status 402" in why for why, _ in elsewhere(remembering, second)[0]] == [True]


def test_looks_nothing_up_before_somebody_looks(remembering):
    before = Counting.reads
    response = remembering.get(answering(lambda: airlock.enqueue(send)))
    remembering.button(response)
    assert Counting.reads == before

    assert "Nothing else was kept back, as far as is remembered." in elsewhere(remembering, response)[1]
    assert Counting.reads == before + 2


def test_looks_nothing_up_for_panels_that_are_part_of_the_page(remembering):
    remembering.settings.DEBUG_TOOLBAR_CONFIG = {"RENDER_PANELS": True}
    before = Counting.reads
    response = remembering.get(answering(lambda: airlock.enqueue(send)))

    assert "for which RENDER_PANELS must be off" in response.body.decode()
    assert Counting.reads == before


def test_says_what_to_set_to_see_more(toolbar):
    rows, around = elsewhere(toolbar, toolbar.get(answering(lambda: None)))

    assert rows == []
    assert 'AIRLOCK["EXPLAIN"] = {"CACHE": "default"}' in around


def test_says_that_the_cache_cannot_be_read(remembering):
    away = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"redis://127.0.0.1:{free_port()}/0"}
    response = remembering.get(answering(lambda: airlock.enqueue(send)))
    remembering.settings.CACHES = {"default": away}

    assert "The cache 'default' cannot be read. ConnectionError" in elsewhere(remembering, response)[1]
    assert remembering.rows(response)[0].events == ["enqueued", "dispatched"]
    remembering.settings.CACHES = {"default": {"BACKEND": f"{__name__}.Counting", "LOCATION": f"{RUN} toolbar"}}


def test_says_that_the_setting_is_wrong(toolbar):
    toolbar.settings.AIRLOCK = {"EXPLAIN": {"SIZE": 3}}
    _, around = elsewhere(toolbar, toolbar.get(answering(lambda: None)))
    toolbar.settings.AIRLOCK = {}

    assert "AIRLOCK['EXPLAIN'] has the unknown key 'SIZE'" in around


# Whatever the request


def test_shows_requests_of_scripts_in_the_page(toolbar):
    response = toolbar.get(answering(lambda: airlock.enqueue(send), lambda _: JsonResponse({})))
    assert toolbar.rows(response)[0].events == ["enqueued", "dispatched"]
    assert toolbar.button(response) == ("1 dispatched", [])


def test_shows_async_views_and_the_threads_they_wait_for(toolbar):
    def in_thread():
        with atomic():
            airlock.enqueue(send, 2)

    async def view(request):
        airlock.enqueue(send, 1)
        await sync_to_async(in_thread)()
        return HttpResponse()

    rows = toolbar.rows(toolbar.get(view))

    assert [row.intent for row in rows] == ["send(1)", "send(2)"]
    assert [row.boundary[1] for row in rows] == ["no transaction", "the transaction on 'default'"]
    assert {row.events[-1] for row in rows} == {"dispatched"}


def test_shows_what_waits_for_the_transaction_of_the_request(toolbar):
    toolbar.settings.DATABASES["default"]["ATOMIC_REQUESTS"] = True
    try:
        (row,) = toolbar.rows(toolbar.get(answering(lambda: airlock.enqueue(send))))
    finally:
        toolbar.settings.DATABASES["default"]["ATOMIC_REQUESTS"] = False

    assert row.boundary[1] == "the transaction on 'default'"
    assert row.events == ["enqueued", "dispatched"]


class Uncaptured(DjangoScope):
    capturable = False


def test_shows_a_rollback_after_the_flush(toolbar, rolled_back):
    def book():
        with rolled_back(), airlock.scope(_cls=Uncaptured):
            airlock.enqueue(send)

    response = toolbar.get(answering(book))
    (row,) = toolbar.rows(response)

    assert row.events == ["enqueued", "rolled back with the transaction on 'default'"]
    # Under ASGI that is not known before the response is closed, in the thread that has the connection.
    assert ("1 rolled back" if toolbar.server == "WSGI" else "1 waiting") in response.body.decode()


def test_shows_the_body_of_a_streaming_response(toolbar):
    def body():
        yield b"begin"
        airlock.enqueue(send, "body")

    async def async_body():
        for chunk in body():
            yield chunk

    def view(request):
        airlock.enqueue(send, "view")
        return StreamingHttpResponse(body() if toolbar.server == "WSGI" else async_body())

    response = toolbar.get(view)
    rows = toolbar.rows(response)

    assert response.body == b"begin"
    assert [row.intent for row in rows] == ["send('view')", "send('body')"]
    assert {row.events[-1] for row in rows} == {"dispatched"}
    assert toolbar.button(response) == ("2 dispatched", [])


def test_shows_how_it_ends_in_a_boundary_around_the_toolbar(toolbar):
    toolbar.settings.MIDDLEWARE = [OURS, TOOLBARS]
    response = toolbar.get(answering(lambda: airlock.enqueue(send)))

    assert "1 waiting" in response.body.decode()
    assert toolbar.rows(response)[0].events == ["enqueued", "dispatched"]
    assert toolbar.button(response) == ("1 dispatched", [])


def test_says_that_the_end_is_not_known(toolbar):
    class Leaving:
        tells_of_dispatched = True

        def __call__(self, intent): ...

    toolbar.settings.AIRLOCK = {"EXECUTOR": Leaving()}
    (row,) = toolbar.rows(toolbar.get(answering(lambda: airlock.enqueue(send))))

    assert row.events == ["enqueued", "waiting when this was recorded"]


def test_says_that_it_had_not_ended_with_the_response(toolbar):
    class Leaving:
        tells_of_dispatched = True

        def __call__(self, intent): ...

    toolbar.settings.AIRLOCK = {"EXECUTOR": Leaving()}

    async def async_body():
        airlock.enqueue(send)
        yield b""

    def body():
        airlock.enqueue(send)
        yield b""

    def view(request):
        return StreamingHttpResponse(body() if toolbar.server == "WSGI" else async_body())

    (row,) = toolbar.rows(toolbar.get(view))

    assert row.events == ["enqueued", "no end by the end of the response"]


def test_requests_at_the_same_time_are_not_mixed_up(toolbar):
    together = threading.Barrier(2, timeout=30)

    def view(request):
        together.wait()
        airlock.enqueue(send, request.META["QUERY_STRING"])
        together.wait()
        return HttpResponse()

    with ThreadPoolExecutor(2) as pool:
        responses = list(pool.map(lambda who: toolbar.get(view, who), ["ada", "grace"]))

    assert [[row.intent for row in toolbar.rows(each)] for each in responses] == [["send('ada')"], ["send('grace')"]]


# What it leaves alone


def test_nobody_listens_where_the_toolbar_is_not_shown(toolbar):
    toolbar.settings.INTERNAL_IPS = []
    heard = []
    toolbar.get(answering(lambda: heard.append(is_heard())))

    assert heard == [False]


def test_nobody_listens_to_a_panel_that_is_off(toolbar):
    toolbar.settings.DEBUG_TOOLBAR_CONFIG = {"RENDER_PANELS": False, "DISABLE_PANELS": {PANEL}}
    heard = []
    toolbar.get(answering(lambda: heard.append(is_heard())))

    assert heard == [False]


def test_nobody_listens_after_an_interruption(toolbar):
    def interrupt(request):
        assert is_heard()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toolbar.get(interrupt)
    assert not is_heard()


def not_modified(get_response):
    """Answers with a response of its own, and does not close the other."""

    def respond(request):
        get_response(request)
        return HttpResponseNotModified()

    return respond


def test_nobody_listens_after_a_response_that_is_never_closed(toolbar):
    toolbar.settings.MIDDLEWARE = [f"{__name__}.not_modified", *toolbar.settings.MIDDLEWARE]
    toolbar.get(answering(lambda: airlock.enqueue(send)))
    gc.collect()

    assert not is_heard()


def test_what_the_toolbar_has_forgotten_does_not_come_back(toolbar):
    toolbar.settings.DEBUG_TOOLBAR_CONFIG = {"RENDER_PANELS": False, "RESULTS_CACHE_SIZE": 1}

    def other():
        return Answer(Client().get("/other").headers, b"")

    def body():
        yield b""
        airlock.enqueue(send)
        newest.append(other())

    async def async_body():
        yield b""
        airlock.enqueue(send)
        newest.append(await sync_to_async(other)())

    def view(request):
        if request.path == "/other":
            return HttpResponse()
        return StreamingHttpResponse(body() if toolbar.server == "WSGI" else async_body())

    newest = []
    response = toolbar.get(view)

    assert toolbar.button(newest[0]) == ("no intents", [])
    assert toolbar.side_bar(response) == {}


# Checks


def ids():
    return [message.id for message in run_checks() if message.id.startswith("airlock")]


@pytest.mark.parametrize("toolbar", ["WSGI"], indirect=True)
def test_checks_find_nothing_in_a_good_project(toolbar):
    assert ids() == []


@pytest.mark.parametrize("toolbar", ["WSGI"], indirect=True)
def test_checks_find_that_the_boundary_is_around_the_toolbar(toolbar):
    toolbar.settings.MIDDLEWARE = [OURS, TOOLBARS]

    assert ids() == ["airlock.W004"]


@pytest.mark.parametrize("toolbar", ["WSGI"], indirect=True)
def test_checks_find_that_the_templates_are_missing(toolbar):
    toolbar.settings.INSTALLED_APPS = ["django.contrib.staticfiles", "debug_toolbar"]

    assert "airlock.E006" in ids()
