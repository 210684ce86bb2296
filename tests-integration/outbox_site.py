"""A site with the outbox in its admin, for a browser: `python outbox_site.py DIRECTORY`. It prints its address."""

from __future__ import annotations

import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
from celery import Celery
from django.conf import settings

PASSWORD = "only for tests"
MINUTE = timedelta(minutes=1)


def configure(directory: Path) -> None:
    settings.configure(
        SECRET_KEY="only for tests",
        ALLOWED_HOSTS=["127.0.0.1"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "site.sqlite3"}},
        INSTALLED_APPS=[
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "django.contrib.staticfiles",
            "airlock.integrations.django",
            "airlock.integrations.outbox",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "outbox_site.strict",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        AIRLOCK={
            "SCOPE": "airlock.integrations.outbox.OutboxScope",
            "OUTBOX": {"FAST_PATH_SECONDS": 0},  # there is no broker
        },
        ROOT_URLCONF=(),
        STATIC_URL="/static/",
        USE_TZ=True,
    )
    django.setup()


def strict(get_response: Any) -> Any:
    """As careful sites do, have browsers refuse styles and scripts that are written into a page."""

    def respond(request: Any) -> Any:
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:"
        return response

    return respond


def fill() -> None:
    """Make two members of the staff, and entries of many hours."""
    from django.contrib.auth.models import Permission, User
    from django.core.management import call_command
    from django.db.transaction import atomic
    from django.utils import timezone

    import airlock
    from airlock.integrations.outbox.models import Entry

    call_command("migrate", verbosity=0)
    User.objects.create_superuser("alex", password=PASSWORD)
    robin = User.objects.create_user("robin", password=PASSWORD, is_staff=True)
    robin.user_permissions.set(Permission.objects.filter(codename__in=["view_entry", "change_entry"]))

    app = Celery("site", broker="memory://")
    app.set_default()

    @app.task(name="shop.tasks.send_receipt")
    def send_receipt(order: int, customer: str) -> None: ...

    with airlock.scope(), atomic():
        airlock.enqueue(send_receipt, 42, customer="<b>Ada</b>")
    Entry.objects.update(due=None, attempts=10, error="ConnectionRefusedError: [Errno 111] Connection refused")

    now = timezone.now()
    ours: Any = {"held": False, "payload": "-"}
    entries = [
        Entry(task="shop.tasks.reindex", created=now - age * MINUTE, due=now - age * MINUTE, **ours)
        for age in [*range(1, 15), *range(61, 70), *range(300, 305), 900, 901, 902]
    ]
    entries += [
        Entry(
            task="shop.integrations.warehouse.tasks.announce_that_an_order_has_been_packed_and_is_on_its_way",
            created=now - age * MINUTE,
            attempts=10,
            error="ValueError: The warehouse does not know the order: " + "0123456789abcdef" * 10,
            **ours,
        )
        for age in [2, 3, 65, 301, 302, 303, 1200]
    ]
    entries.append(
        Entry(task="shop.tasks.held", created=now, due=now + 60 * MINUTE, lease=uuid.uuid4(), **{**ours, "held": True})
    )
    for entry in entries:
        entry.id = uuid.uuid4()
    Entry.objects.bulk_create(entries)


def serve() -> None:
    from django.contrib import admin
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.wsgi import get_wsgi_application
    from django.urls import path
    from waitress import create_server

    settings.ROOT_URLCONF = (path("admin/", admin.site.urls),)
    settings.DEBUG = True  # or Django does not serve static files
    server: Any = create_server(StaticFilesHandler(get_wsgi_application()), host="127.0.0.1", port=0)
    print(f"Serving http://127.0.0.1:{server.effective_port}/admin/.", flush=True)  # noqa: T201
    server.run()


if __name__ == "__main__":
    configure(Path(sys.argv[1]))
    fill()
    serve()
