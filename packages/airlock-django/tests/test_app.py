"""What `INSTALLED_APPS` adds, and that the middleware needs nothing of it."""

import importlib
import subprocess
import sys
from textwrap import dedent

import pytest
from django.apps import apps

import airlock
from airlock.integrations.django import DjangoScope


def run(code, **settings):
    """Run code in a Django of its own, with these settings, and return what it prints."""
    lines = [
        "import django",
        "from django.conf import settings",
        f"settings.configure(SECRET_KEY='x', ALLOWED_HOSTS=['*'], ROOT_URLCONF=(), **{settings!r})",
        "import airlock",
    ]
    program = "\n".join(lines) + dedent(code)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


SCOPE = """
django.setup()
print(type(airlock.scope()).__name__)
"""


def test_in_installed_apps_every_scope_is_a_django_scope():
    assert run(SCOPE, INSTALLED_APPS=["airlock.integrations.django"]) == ["DjangoScope"]


def test_scope_class_that_was_configured_before_stays():
    program = "class Mine(airlock.Scope): pass\nairlock.configure(scope_cls=Mine)\n" + SCOPE
    assert run("\n" + program, INSTALLED_APPS=["airlock.integrations.django"]) == ["Mine"]


def test_app_has_a_name_that_does_not_collide():
    assert apps.get_app_config("airlock").name == "airlock.integrations.django"


@pytest.mark.parametrize("name", ["scope", "scoped"])
def test_every_way_to_a_scope_leads_to_a_django_scope(name):
    @airlock.scoped
    def function():
        return airlock.get_current_scope()

    with airlock.scope() as scope:
        assert type({"scope": scope, "scoped": function()}[name]) is DjangoScope


def test_middleware_alone_is_enough():
    program = """
    from django.http import HttpResponse
    from django.test import Client
    from django.urls import path
    from django.db import transaction

    django.setup()
    ran = []

    def view(request):
        airlock.enqueue(ran.append, "autocommit")
        with transaction.atomic():
            airlock.enqueue(ran.append, "rolled-back")
            transaction.set_rollback(True)
        with airlock.scope() as nested, transaction.atomic():
            airlock.enqueue(ran.append, "nested")
        assert ran == []
        return HttpResponse(status=int(request.GET["status"]))

    settings.ROOT_URLCONF = (path("", view),)
    for status in (500, 200):
        response = Client().get(f"/?status={status}")
        print(response.status_code, *ran, type(response.wsgi_request.airlock_scope).__name__)
    """
    printed = run(
        "\n" + dedent(program),
        MIDDLEWARE=["airlock.integrations.django.AirlockMiddleware"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    )
    assert printed == ["500", "DjangoScope", "200", "autocommit", "nested", "DjangoScope"]


def test_middleware_works_in_a_project_without_databases():
    program = """
    from django.http import HttpResponse
    from django.test import Client
    from django.urls import path

    django.setup()

    def view(request):
        airlock.enqueue(print, "effect")
        return HttpResponse()

    settings.ROOT_URLCONF = (path("", view),)
    print(Client().get("/").status_code)
    """
    assert run("\n" + dedent(program), MIDDLEWARE=["airlock.integrations.django.AirlockMiddleware"]) == [
        "effect",
        "200",
    ]


def test_without_airlock_core_the_import_says_what_to_do(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("airlock.integrations.django")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "airlock.integrations.executors.sync", None)

    with pytest.raises(ImportError, match="airlock-core, and it is not there"):
        importlib.import_module("airlock.integrations.django")
