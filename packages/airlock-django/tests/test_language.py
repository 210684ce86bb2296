"""An effect has the language and the time zone of the code that asked for it, in whatever thread it takes place."""

import asyncio
import subprocess
import sys
from contextlib import contextmanager

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db.transaction import atomic
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient
from django.urls import path
from django.utils import timezone, translation

import airlock

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def in_germany(language="de", time_zone="Europe/Berlin"):
    with translation.override(language), timezone.override(time_zone):
        yield


def here():
    return translation.get_language(), timezone.get_current_timezone_name()


@pytest.fixture
def ask(ran):
    """Enqueues an effect that notes its language and its time zone."""
    return lambda: airlock.enqueue(lambda: ran.append(here()))


@pytest.fixture
def ask_in_germany(ask):
    def ask_in_germany():
        with in_germany():
            ask()

    return ask_in_germany


def in_block(ask):
    with airlock.scope():
        ask()


def at_commit(ask):
    with atomic(), airlock.scope():
        ask()


@async_to_sync
async def in_async_block(ask):
    async with airlock.scope():
        ask()


@async_to_sync
async def in_plain_scope(ask):
    async with airlock.scope(_cls=airlock.Scope):
        ask()


@async_to_sync
async def in_asyncio_task(ask):
    async def work():
        ask()

    async with airlock.scope():
        await asyncio.create_task(work())


@async_to_sync
async def in_sync_part(ask):
    async with airlock.scope():
        await sync_to_async(ask)()


def in_async_part(ask):
    async def work():
        ask()

    with airlock.scope(), atomic():
        async_to_sync(work)()


def in_loop_of_a_script(ask):
    async def work():
        async with airlock.scope():
            ask()

    asyncio.run(work())


PLACES = [in_block, at_commit, in_async_block, in_plain_scope, in_asyncio_task, in_sync_part, in_async_part]
places = pytest.mark.parametrize("run", [*PLACES, in_loop_of_a_script], ids=lambda run: getattr(run, "__name__", None))


@places
def test_effect_has_the_language_and_time_zone_it_was_asked_for_in(run, ask_in_germany, ran):
    run(ask_in_germany)

    assert ran == [("de", "Europe/Berlin")]
    assert here() == ("en-us", "America/Chicago")


@places
def test_effect_asked_for_without_any_has_those_of_the_settings(run, ask, ran):
    run(ask)

    assert ran == [("en-us", "America/Chicago")]


def test_effect_asked_for_with_translations_off_has_them_off(ask, ran):
    @async_to_sync
    async def work():
        async with airlock.scope():
            with in_germany(language=None):
                ask()

    work()

    assert ran == [(None, "Europe/Berlin")]


@pytest.mark.parametrize("streams", [False, True], ids=["view", "body"])
def test_effect_of_an_async_view_has_the_language_of_its_request(settings, ask_in_germany, ran, streams):
    async def view(request):
        async def body():
            ask_in_germany()
            yield b"x"

        if streams:
            return StreamingHttpResponse(body())
        ask_in_germany()
        return HttpResponse()

    @async_to_sync
    async def get():
        response = await AsyncClient().get("/")
        if streams:
            assert [chunk async for chunk in response] == [b"x"]

    settings.ROOT_URLCONF = (path("", view),)
    get()

    assert ran == [("de", "Europe/Berlin")]


@pytest.mark.parametrize("how", ["the setting", "configure"])
def test_carriers_of_the_project_come_beside(settings, ask_in_germany, ran, how):
    @contextmanager
    def noted():
        ran.append("entered")
        yield
        ran.append("left")

    if how == "configure":
        airlock.configure(carriers=[noted])
    else:
        settings.AIRLOCK = {"CARRIERS": [noted]}
    in_async_block(ask_in_germany)

    assert ran == ["entered", ("de", "Europe/Berlin"), "left"]


def test_what_failed_has_its_language_when_it_is_tried_again(ran):
    def effect():
        ran.append(here())
        if len(ran) == 1:
            raise ConnectionError

    @async_to_sync
    async def work():
        async with airlock.scope() as scope:
            with in_germany():
                airlock.enqueue(effect)
        return scope

    scope = work()
    scope.dispatch_all(scope.undispatched_intents)

    assert ran == [("de", "Europe/Berlin")] * 2


def test_where_django_has_no_settings_coroutines_enqueue_too(tmp_path):
    program = """
import asyncio, airlock, airlock.integrations.django

async def main():
    async with airlock.scope():
        airlock.enqueue(print, "effect")

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "effect\n"
