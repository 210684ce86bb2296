"""The shop with the Django Debug Toolbar, for a browser: `python -m toolbar_shop.site`. It prints its address.

With a directory as an argument, it has an outbox there, and confirmations are paused.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command


def strict(get_response: Any) -> Any:
    """As careful sites do, have browsers refuse styles and scripts that are written into a page."""

    def respond(request: Any) -> Any:
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:"
        return response

    return respond


def serve(*directory: str) -> None:
    apps = ["airlock.integrations.outbox"] if directory else []
    outbox = {"SCOPE": "airlock.integrations.outbox.OutboxScope"}
    database = Path(directory[0], "shop.sqlite3") if directory else ":memory:"
    settings.configure(
        SECRET_KEY="only for tests",
        DEBUG=True,
        ALLOWED_HOSTS=["127.0.0.1"],
        INTERNAL_IPS=["127.0.0.1"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
        AIRLOCK={"EXPLAIN": {}, **(outbox if directory else {})},
        INSTALLED_APPS=["django.contrib.staticfiles", "debug_toolbar", "airlock.integrations.django", *apps],
        MIDDLEWARE=[
            "toolbar_shop.site.strict",
            "debug_toolbar.middleware.DebugToolbarMiddleware",
            "airlock.integrations.django.AirlockMiddleware",
        ],
        DEBUG_TOOLBAR_PANELS=[
            "debug_toolbar.panels.history.HistoryPanel",
            "debug_toolbar.panels.timer.TimerPanel",
            "debug_toolbar.panels.sql.SQLPanel",
            "airlock.integrations.django.toolbar.AirlockPanel",
        ],
        DEBUG_TOOLBAR_CONFIG={"UPDATE_ON_FETCH": True},
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
        ROOT_URLCONF=(),
        STATIC_URL="/static/",
        TIME_ZONE="UTC",
        USE_TZ=True,
    )
    django.setup()

    if directory:
        call_command("migrate", verbosity=0)
        call_command("airlock_outbox", "pause", "toolbar_shop.tasks.send_confirmation")

    from debug_toolbar.toolbar import debug_toolbar_urls
    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.wsgi import get_wsgi_application
    from django.urls import path
    from waitress import create_server

    from toolbar_shop import views

    settings.ROOT_URLCONF = (path("", views.checkout), path("decline", views.decline), *debug_toolbar_urls())
    server: Any = create_server(StaticFilesHandler(get_wsgi_application()), host="127.0.0.1", port=0)
    print(f"Serving http://127.0.0.1:{server.effective_port}/.", flush=True)  # noqa: T201
    server.run()


if __name__ == "__main__":
    serve(*sys.argv[1:])
