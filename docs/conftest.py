"""Runs every snippet of the site, in a project of the kind that its page is about.

A snippet that readers see starts with nothing: no names from the snippets before it, and the example project as it is
right after its start. So readers can copy each snippet alone. A snippet in a comment (an `invisible-code-block`) goes
on where the one before it left off. It finds what that printed in `printed`, and the whole page in `page`. It checks
what would only be in the reader's way.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
from collections import defaultdict
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import django.conf
import pytest
from celery import _state, signals
from celery.contrib.testing.tasks import ping
from celery.contrib.testing.worker import start_worker
from django.utils.functional import empty
from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.codeblock import AbstractCodeBlockParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer
from sybil.parsers.myst.lexers import DirectiveInPercentCommentLexer
from sybil.sybil import SybilCollection

import airlock
from airlock.integrations.celery import uninstall_global_intercept
from own_brokers import OwnRedis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Task
    from django.core.mail import EmailMessage
    from pytest_django.fixtures import SettingsWrapper
    from sybil import Example

EXAMPLES = Path(__file__).parent / "examples"

#: Which pages are about which kind of project: those in `examples`, by name.
PAGES = {
    "plain": [
        "index",
        "installation",
        "quickstart",
        "policies",
        "nesting",
        "observing",
        "testing",
        "extending",
        "api",
        "changelog",
    ],
    "celery": ["celery", "task-wrapper", "celery-outcomes", "migration", "testing-celery"],
    "django": ["django", "explain", "toolbar", "comparison", "testing-pytest-django"],
    "outbox": ["outbox", "outbox-operations", "outbox-crash-test"],
    "queues": ["queues"],
    "queues-django": ["queues-django"],
}

#: What is set up for each snippet of such a page. Snippets in comments find it under these names.
FIXTURES = {
    "plain": ["plain_project"],
    "celery": ["celery_project", "ran"],
    "django": ["django_project"],
    "outbox": ["outbox_project"],
    "queues": ["queues_project"],
    "queues-django": ["django_project"],
}

#: Which of those in `examples` such a project is, if it is not the one of that name.
PROJECTS = {"outbox": "django", "queues-django": "django"}

# test_examples.py runs the tests of the example projects, in processes of their own.
collect_ignore = ["_build", "examples"]

# For all projects, instead of the servers in their settings.
os.environ["CELERY_BROKER_URL"] = "memory://"
os.environ["CELERY_RESULT_BACKEND"] = "cache+memory://"

#: What registers Celery's own tasks with every app of a process. Shared tasks, as those of the Django project, join it.
REGISTER_TASKS_OF_CELERY = set(_state._on_app_finalizers)  # noqa: SLF001

# Django can be set up once in a process. The other projects put it out of sight.
sys.path.insert(0, str(EXAMPLES / "django"))
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
# For the pages that are about them. The outbox does nothing before `AIRLOCK` says so.
django.conf.settings.INSTALLED_APPS += ["airlock.integrations.outbox", "django_q"]
django.conf.settings.Q_CLUSTER = {"name": "shop", "orm": "default", "workers": 1, "timeout": 30, "retry": 60}
django.setup()
CELERY_OF_DJANGO = importlib.import_module("config.celery").app
# Another process that shares the tests would look for the module before this file has said where it is.
del os.environ["DJANGO_SETTINGS_MODULE"]
# The worker of the other project would take its messages, whose tasks have the same names.
CELERY_OF_DJANGO.conf.task_default_queue = "django"


def run_afresh(example: Example) -> None:
    """Run a snippet as the only one in its file."""
    example.namespace.clear()
    example.namespace["__name__"] = "__main__"
    printed = io.StringIO()
    with logging_afresh(), redirect_stdout(printed), redirect_stderr(printed):
        PythonEvaluator()(example)
    example.namespace["printed"] = printed.getvalue()
    example.namespace["page"] = example.document.text


@contextmanager
def logging_afresh() -> Iterator[None]:
    """Make logging as unconfigured as it is at the start of a program, and put it back as pytest has it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(level)


def sybil(kind: str) -> Sybil:
    shown = FencedCodeBlockLexer("python", mapping={"language": "arguments", "source": "source"})
    hidden = DirectiveInPercentCommentLexer(directive="invisible-code-block", arguments="python")
    return Sybil(
        parsers=[
            AbstractCodeBlockParser([shown], "python", run_afresh),
            AbstractCodeBlockParser([hidden], "python", PythonEvaluator()),
        ],
        filenames=[f"{page}.md" for page in PAGES[kind]],
        fixtures=FIXTURES[kind],
    )


SYBILS = {kind: sybil(kind) for kind in PAGES}
pytest_collect_file = SybilCollection(SYBILS.values()).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "django_project" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.django_db(transaction=True, databases="__all__"))


@contextmanager
def project(kind: str) -> Iterator[None]:
    """Make the modules of one example project importable, anew, instead of those of another."""
    own = {path.stem for path in EXAMPLES.glob("*/*")}

    def loaded() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in own]

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES / kind)
        for name in loaded():
            patch.delitem(sys.modules, name)
        yield
        for name in loaded():
            del sys.modules[name]


@contextmanager
def without_django() -> Iterator[None]:
    """Make Django look as in a project that does not use it: installed, perhaps, but not configured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(django.conf.settings, "_wrapped", empty)
        yield
    airlock.reset_configuration()


@pytest.fixture
def plain_project() -> Iterator[None]:
    with without_django(), project("plain"):
        yield


@pytest.fixture(scope="module")
def celery_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The Celery project, with a broker and a result back end in memory, and a worker that runs all its tasks.

    Returns:
        The names of the tasks that the worker has run, in order.
    """
    ran: list[str] = []

    def record(sender: Task[..., Any], **_: Any) -> None:
        ran.append(sender.name)

    with without_django(), project("celery"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_state, "_on_app_finalizers", set(REGISTER_TASKS_OF_CELERY))
        # A worker knows the tasks that are there when it starts.
        for path in sorted((EXAMPLES / "celery" / "shop").glob("*.py")):
            importlib.import_module(f"shop.{path.stem}")
        app = importlib.import_module("shop.app").app
        app.conf.update(
            broker_transport_options={"polling_interval": 0.01},
            worker_hijack_root_logger=False,
            worker_redirect_stdouts=False,
        )
        signals.task_prerun.connect(record)
        with start_worker(app, perform_ping_check=False, shutdown_timeout=60):
            yield ran
        signals.task_prerun.disconnect(record)
        with app.connection_for_write() as connection:
            connection.default_channel.queue_purge(app.conf.task_default_queue)
    CELERY_OF_DJANGO.set_current()
    CELERY_OF_DJANGO.set_default()


@pytest.fixture
def celery_project(celery_worker: list[str]) -> Iterator[None]:
    yield
    airlock.reset_configuration()
    uninstall_global_intercept()


@pytest.fixture
def ran(celery_worker: list[str]) -> Callable[[], list[str]]:
    """A function that waits until the worker is done, and returns the names of all tasks it has run for this page."""

    def settled() -> list[str]:
        # One worker takes one task after the other: when this one has run, those before it have.
        ping.apply_async().get(timeout=120)
        return [name for name in celery_worker if name != ping.name]

    return settled


@pytest.fixture
def django_project(transactional_db: None, mailoutbox: list[EmailMessage]) -> None:
    """The Django project, with empty databases, which the other projects leave in place."""


@pytest.fixture
def outbox_project(django_project: None, settings: SettingsWrapper) -> None:
    """The Django project, with an outbox."""
    settings.AIRLOCK = {"SCOPE": "airlock.integrations.outbox.OutboxScope"}


@pytest.fixture(scope="session")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis of our own."""
    server = OwnRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def queues_project(own_redis: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The project with other queues, on a Redis that keeps what waits from snippet to snippet."""
    monkeypatch.setenv("REDIS_URL", own_redis)
    with without_django(), project("queues"):
        yield


@pytest.fixture
def pages() -> list[Path]:
    """All pages whose snippets are run."""
    return [Path(__file__).parent / f"{page}.md" for pages in PAGES.values() for page in pages]


@pytest.fixture(params=[(kind, page) for kind, pages in PAGES.items() for page in pages], ids=lambda param: param[1])
def page(request: pytest.FixtureRequest) -> Path:
    """Each page in turn."""
    return Path(__file__).parent / f"{request.param[1]}.md"


@pytest.fixture
def snippets(request: pytest.FixtureRequest, page: Path) -> list[str]:
    """The snippets of the page that readers see, and that are run."""
    kind = request.node.callspec.params["page"][0]
    return [str(example.parsed) for example in SYBILS[kind].parse(page) if example.region.evaluator is run_afresh]


@pytest.fixture
def all_snippets() -> dict[str, list[tuple[Path, int, str]]]:
    """The page, the line and the source of each snippet that readers see, for each project in `examples`."""
    found: dict[str, list[tuple[Path, int, str]]] = defaultdict(list)
    for kind, names in PAGES.items():
        found[PROJECTS.get(kind, kind)] += [
            (page, example.line, str(example.parsed))
            for page in (Path(__file__).parent / f"{name}.md" for name in names)
            for example in SYBILS[kind].parse(page)
            if example.region.evaluator is run_afresh
        ]
    return found
