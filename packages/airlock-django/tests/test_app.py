"""The packaging of airlock-django: what it needs of a project, and what it says where something else is missing."""

import importlib
import subprocess
import sys

import pytest
from django.apps import apps

import airlock
from airlock.integrations.django import DjangoScope

REQUEST = """
import airlock, django
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.urls import path

def view(request):
    airlock.enqueue(print, "effect")
    return HttpResponse()

settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=(path("", view),),
    MIDDLEWARE=["airlock.integrations.django.AirlockMiddleware"],
)
django.setup()
print(Client().get("/").status_code)
"""

TRANSACTION = """
import airlock, django
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
from django.db import connection, transaction
FIRST
import airlock.integrations.django

for commits in (True, False):
    with transaction.atomic():
        with airlock.scope():
            airlock.enqueue(print, "effect")
        print("waits")
        transaction.set_rollback(not commits)
"""


def output_of(program):
    """Of a process of its own, in which no test has set anything up."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_middleware_needs_no_app_and_no_database():
    assert output_of(REQUEST).split() == ["effect", "200"]


@pytest.mark.parametrize("first", ["", "connection.ensure_connection()"], ids=["unused", "used before Airlock"])
def test_transactions_count_without_middleware_or_app(first):
    assert output_of(TRANSACTION.replace("FIRST", first)).split() == ["waits", "effect", "waits"]


def test_app_has_a_name_that_does_not_collide():
    assert apps.get_app_config("airlock").name == "airlock.integrations.django"


def test_every_way_to_a_scope_leads_to_a_django_scope():
    @airlock.scoped
    def function():
        return airlock.get_current_scope()

    with airlock.scope() as scope:
        assert type(scope) is type(function()) is DjangoScope


def test_without_airlock_core_the_import_says_what_to_do(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("airlock.integrations.django")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "airlock.integrations.executors.sync", None)

    with pytest.raises(ImportError, match=r"pip install .*airlock-core"):
        importlib.import_module("airlock.integrations.django")
