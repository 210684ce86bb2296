"""The distributions join up under `airlock`, however they are installed.

Run by `nox -s build`, which says in the environment where the built distributions are.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[1]
NAMES = [
    "airlock-core",
    "airlock-celery",
    "airlock-django",
    "airlock-outbox",
    "airlock-queues",
    "airlock-all",
    "airlock-lint",
]

#: Each, run in a new interpreter, uses one distribution through its public import paths.
USE = {
    "airlock-core": """
        import airlock
        from airlock.integrations.executors.sync import sync_executor

        sent = []
        with airlock.scope(executor=sync_executor):
            airlock.enqueue(sent.append, 1)
            assert sent == []
        assert sent == [1]
    """,
    "airlock-celery": """
        import airlock
        from airlock.integrations.celery import AirlockTask
        from airlock.integrations.executors.celery import celery_executor
        from celery import Celery

        app = Celery(broker="memory://", backend="cache+memory://", set_as_current=False)
        app.conf.update(task_always_eager=True, task_eager_propagates=True)
        sent = []

        @app.task(name="follow_up")
        def follow_up(value):
            sent.append(value)

        @app.task(base=AirlockTask, name="first")
        def first():
            airlock.enqueue(follow_up, 1)
            assert sent == []

        with airlock.scope(executor=celery_executor):
            airlock.enqueue(first)
            assert sent == []
        assert sent == [1]
    """,
    "airlock-django": """
        import airlock
        import django
        from django.conf import settings
        from django.http import HttpResponse
        from django.test import RequestFactory

        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
        django.setup()
        from airlock.integrations.django import AirlockMiddleware

        sent = []

        def view(request):
            airlock.enqueue(sent.append, 1)
            assert sent == []
            return HttpResponse()

        AirlockMiddleware(view)(RequestFactory().get("/"))
        assert sent == [1]
    """,
    "airlock-outbox": """
        import airlock
        import django
        from celery import Celery
        from django.conf import settings
        from django.core.management import call_command
        from django.db import transaction

        settings.configure(
            SECRET_KEY="secret",
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=["airlock.integrations.django", "airlock.integrations.outbox"],
            AIRLOCK={
                "SCOPE": "airlock.integrations.outbox.OutboxScope",
                "OUTBOX": {"FAST_PATH_SECONDS": 0},  # a relay would dispatch everything
            },
        )
        django.setup()
        call_command("migrate", verbosity=0)
        from airlock.integrations.outbox.models import Entry

        app = Celery(broker="memory://")

        @app.task(name="work")
        def work(value): ...

        with airlock.scope():
            with transaction.atomic():
                airlock.enqueue(work, 1)
                assert not Entry.objects.exists()
            assert Entry.objects.get().held
        assert [(entry.task, entry.held) for entry in Entry.objects.all()] == [("work", False)]
    """,
}

#: The same for the distribution that airlock-all does not bring, as most need one of its extras at most.
USE_QUEUES = """
    import airlock
    from airlock.integrations.executors.huey import airlock_task, huey_executor
    from huey import MemoryHuey

    huey = MemoryHuey(immediate=True)
    sent = []

    @huey.task()
    def follow_up(value):
        sent.append(value)

    @huey.task()
    @airlock_task
    def first():
        airlock.enqueue(follow_up, 1)
        assert sent == []

    with airlock.scope(executor=huey_executor):
        airlock.enqueue(first)
    assert sent == [1]
"""


class Environment:
    """A new virtual environment, and the installer that works on it."""

    def __init__(self, directory: Path, installer: str) -> None:
        run("uv", "venv", "--quiet", "--python", sys.executable, directory)
        self.directory = directory
        self.python = str(directory / "bin" / "python")
        if installer == "pip":
            self._install = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet"]
            self._uninstall = [sys.executable, "-m", "pip", "--python", self.python, "uninstall", "--quiet", "--yes"]
        else:
            self._install = ["uv", "pip", "install", "--quiet", "--python", self.python]
            self._uninstall = ["uv", "pip", "uninstall", "--quiet", "--python", self.python]

    def install(self, *arguments: Path | str) -> None:
        run(*self._install, *arguments)

    def add(self, *distributions: Path | str) -> None:
        """Install distributions without what they need."""
        self.install("--no-deps", *distributions)

    def uninstall(self, *names: str) -> None:
        run(*self._uninstall, *names)

    def installed(self) -> set[str]:
        """The names of all distributions in it."""
        code = "import importlib.metadata as m; print(*(d.metadata['Name'].lower() for d in m.distributions()))"
        return set(self.run(code).split())

    def run(self, code: str) -> str:
        """Run Python code in it, and return what that prints."""
        # -I keeps the present directory from the places to import from.
        return run(self.python, "-I", "-c", dedent(code))

    def use(self, *names: str) -> None:
        """Use distributions, each in an interpreter of its own."""
        for name in names:
            self.run(USE[name])

    def error(self, code: str) -> str:
        """Run Python code that raises, and return the last line of its traceback, which names the exception."""
        with pytest.raises(subprocess.CalledProcessError) as raised:
            self.run(code)
        return raised.value.stderr.strip().splitlines()[-1]


def run(*command: Path | str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        error.add_note(error.stdout + error.stderr)
        raise


@pytest.fixture(scope="session")
def distributions() -> Path:
    """The directory with the sdist and the wheel of each distribution."""
    return Path(os.environ["AIRLOCK_TEST_DISTRIBUTIONS"])


@pytest.fixture(scope="session")
def wheels(distributions: Path) -> dict[str, Path]:
    """The wheel of each distribution."""
    return {name: next(distributions.glob(f"{name.replace('-', '_')}-*.whl")) for name in NAMES}


@pytest.fixture(params=["pip", "uv"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Environment]:
    """An environment with nothing in it; each installer in turn."""
    yield Environment(tmp_path / "environment", request.param)
    shutil.rmtree(tmp_path / "environment")


@pytest.fixture
def install(empty: Environment, wheels: dict[str, Path], tmp_path: Path) -> Callable[[str], Environment]:
    """A function that installs one of our distributions, with all that it needs."""
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("".join(f"{name} @ {wheel.as_uri()}\n" for name, wheel in wheels.items()))

    def install(name: str) -> Environment:
        empty.install("--constraint", constraints, name)
        return empty

    return install


@pytest.fixture(scope="session")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with Celery, Django and Huey, and what these need."""
    directory = tmp_path_factory.mktemp("third_party")
    target = ["--python", sys.executable, "--target", directory]
    run("uv", "pip", "install", "--quiet", "--compile-bytecode", *target, "celery", "django", "huey")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def prepared(empty: Environment, third_party: Path) -> Environment:
    """An environment with all that our distributions need, and none of them; each installer in turn."""
    (site_packages,) = empty.directory.glob("lib/python*/site-packages")
    (site_packages / "third_party.pth").write_text(str(third_party))
    return empty


only_uv = pytest.mark.parametrize("empty", ["uv"], indirect=True)


# What is in the distributions


#: What each has in `airlock/integrations`, where none may have an `__init__.py` that the others would lack.
INTEGRATION_MODULES = {
    "airlock-core": ["executors/sync/", "otel.py", "sentry.py"],
    "airlock-celery": ["celery/", "executors/celery/"],
    "airlock-django": ["django/", "executors/django_tasks/"],
    "airlock-outbox": ["outbox/"],
    "airlock-queues": [f"executors/{queue}/" for queue in ("django_q", "dramatiq", "huey", "rq")],
    "airlock-all": [],
    "airlock-lint": [],
}


@pytest.mark.parametrize("name", NAMES)
def test_wheel_carries_its_own_modules_and_no_others(wheels: dict[str, Path], name: str) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        files = {file for file in archive.namelist() if ".dist-info/" not in file}
    integrations = {file for file in files if file.startswith("airlock/integrations/")}
    own = tuple(f"airlock/integrations/{path}" for path in INTEGRATION_MODULES[name])

    assert {file for file in integrations if not file.startswith(own)} == set()
    assert {path + "__init__.py" for path in own if path.endswith("/")} <= integrations
    assert {file.partition("/")[0] for file in files} <= {"airlock_lint" if name == "airlock-lint" else "airlock"}
    assert ("airlock/__init__.py" in files) == (name == "airlock-core")
    assert bool(files - integrations) == (name in ("airlock-core", "airlock-lint"))
    assert any(file.endswith("/py.typed") for file in files) == bool(files)


@pytest.mark.parametrize("name", NAMES)
def test_sdist_carries_the_changelog_the_readme_and_the_licence(distributions: Path, name: str) -> None:
    (sdist,) = distributions.glob(f"{name.replace('-', '_')}-*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive}

    assert {"CHANGELOG.md", "README.md", "LICENSE", "pyproject.toml"} <= files


# Alone


def test_airlock_core_alone_brings_nothing(install: Callable[[str], Environment]) -> None:
    alone = install("airlock-core")

    assert alone.installed() == {"airlock-core"}
    alone.use("airlock-core")


def test_airlock_celery_alone_brings_no_django(install: Callable[[str], Environment]) -> None:
    alone = install("airlock-celery")

    assert {"airlock-core", "airlock-celery", "celery"} <= alone.installed()
    assert alone.installed().isdisjoint({"airlock-django", "django", "airlock-all"})
    alone.use("airlock-core", "airlock-celery")


def test_airlock_django_alone_brings_no_celery(install: Callable[[str], Environment]) -> None:
    alone = install("airlock-django")

    assert {"airlock-core", "airlock-django", "django"} <= alone.installed()
    assert alone.installed().isdisjoint({"airlock-celery", "celery", "airlock-all"})
    alone.use("airlock-core", "airlock-django")


def test_airlock_outbox_brings_all_but_airlock_all(install: Callable[[str], Environment]) -> None:
    outbox = install("airlock-outbox")

    assert {*USE, "celery", "django"} <= outbox.installed()
    assert outbox.installed().isdisjoint({"airlock-queues", "airlock-all", "airlock-lint"})
    outbox.use(*USE)


def test_airlock_all_brings_everything(install: Callable[[str], Environment]) -> None:
    everything = install("airlock-all")

    assert {*USE, "airlock-all", "celery", "django"} <= everything.installed()
    assert "airlock-lint" not in everything.installed()  # a tool for development
    everything.use(*USE)


def test_airlock_queues_brings_the_queue_of_its_extra(install: Callable[[str], Environment]) -> None:
    queues = install("airlock-queues[huey]")

    assert queues.installed() == {"airlock-core", "airlock-queues", "huey"}
    queues.run(USE_QUEUES)


def test_airlock_lint_alone_brings_a_command_and_no_airlock(
    install: Callable[[str], Environment], tmp_path: Path
) -> None:
    tool = install("airlock-lint")
    (tmp_path / "views.py").write_text("from shop.tasks import notify\ndef view(): notify.delay(1)\n")

    assert tool.installed().isdisjoint({*USE, "airlock-all", "celery", "django"})
    command = [tool.directory / "bin" / "airlock-lint", "check", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "views.py:2:13: AIR001" in found.stdout


# Together


@only_uv
@pytest.mark.parametrize("order", list(itertools.permutations(USE)), ids=" ".join)
def test_wheels_join_up_in_any_order(prepared: Environment, wheels: dict[str, Path], order: tuple[str, ...]) -> None:
    for name in order:
        prepared.add(wheels[name])

    prepared.use(*USE)


@only_uv
@pytest.mark.parametrize(
    "editable", [names for count in (1, 2, 4) for names in itertools.combinations(USE, count)], ids=" ".join
)
def test_editable_installs_join_up_with_each_other_and_with_wheels(
    prepared: Environment, wheels: dict[str, Path], editable: tuple[str, ...]
) -> None:
    for name in USE:
        prepared.add(*(["--editable", ROOT / "packages" / name] if name in editable else [wheels[name]]))

    prepared.use(*USE)
    for name in USE:
        module = {"airlock-core": "airlock"}.get(name, f"airlock.integrations.{name.removeprefix('airlock-')}")
        file = Path(prepared.run(f"import {module} as module; print(module.__file__)").strip())
        assert file.is_relative_to(ROOT / "packages" / name if name in editable else prepared.directory)


@only_uv
@pytest.mark.parametrize("editable", [True, False], ids=["editable", "wheel"])
def test_airlock_queues_joins_up_with_the_others(
    prepared: Environment, wheels: dict[str, Path], editable: bool
) -> None:
    for name in USE:
        prepared.add(*([wheels[name]] if editable else ["--editable", ROOT / "packages" / name]))
    prepared.add(*(["--editable", ROOT / "packages" / "airlock-queues"] if editable else [wheels["airlock-queues"]]))

    prepared.use(*USE)
    prepared.run(USE_QUEUES)


@pytest.mark.parametrize(("gone", "left"), [("airlock-celery", "airlock-django"), ("airlock-django", "airlock-celery")])
def test_uninstalling_one_leaves_the_others_working(
    prepared: Environment, wheels: dict[str, Path], gone: str, left: str
) -> None:
    prepared.add(*wheels.values())
    prepared.use(*USE)

    prepared.uninstall(gone, "airlock-outbox", "airlock-all")

    prepared.use("airlock-core", left)
    assert "Error: " in prepared.error(USE[gone])


# Beside other projects that have a module `airlock`

#: The modules of the projects that are called so on the index; in the places of ours, and with the imports that matter.
OTHERS = {
    "airlock": {"airlock/__init__.py": "def open_door(): ..."},
    "airlock-py": {
        "airlock/__init__.py": "class Intent: ...\nclass Scope: ...",
        "airlock/integrations/__init__.py": "",
        "airlock/integrations/celery.py": "import airlock",
        "airlock/integrations/django/__init__.py": """
            import airlock
            from airlock import Intent, Scope
            from airlock.integrations.executors.sync import sync_executor
            class AirlockMiddleware: ...
        """,
        "airlock/integrations/django/apps.py": "",
        "airlock/integrations/executors/__init__.py": "",
        "airlock/integrations/executors/celery.py": "from airlock import Intent",
        "airlock/integrations/executors/sync.py": "from airlock import Intent\ndef sync_executor(intent): ...",
    },
}
INTEGRATIONS = [
    "airlock.integrations.outbox",
    "airlock.integrations.celery",
    "airlock.integrations.executors.celery",
    "airlock.integrations.executors.huey",
    "airlock.integrations.executors.sync",
    "airlock.integrations.django",
]


def other_wheel(name: str, directory: Path) -> Path:
    """Build the wheel of such a project."""
    stem = f"{name.replace('-', '_')}-1.0"
    files = {
        **{file: dedent(text) for file, text in OTHERS[name].items()},
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{stem}.dist-info/RECORD"
    wheel = directory / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in {**files, record: "".join(f"{file},,\n" for file in [*files, record])}.items():
            archive.writestr(file, text)
    return wheel


def assert_says_what_to_do(environment: Environment, modules: list[str]) -> None:
    for module in modules:
        error = environment.error(f"import {module}")
        assert error.startswith("ImportError: ")
        assert "pip install --force-reinstall airlock-core" in error


def test_airlock_works_when_installed_after_a_project_that_has_no_integrations(
    prepared: Environment, wheels: dict[str, Path], tmp_path: Path
) -> None:
    prepared.add(other_wheel("airlock", tmp_path))
    prepared.add(*wheels.values())

    prepared.use(*USE)


@pytest.mark.parametrize("other", OTHERS)
def test_importing_an_integration_says_so_when_another_project_was_installed_later(
    prepared: Environment, wheels: dict[str, Path], tmp_path: Path, other: str
) -> None:
    prepared.add(*wheels.values())
    prepared.add(other_wheel(other, tmp_path))

    assert_says_what_to_do(prepared, INTEGRATIONS)

    # Half a repair is not enough.
    if other == "airlock-py":
        prepared.add("--force-reinstall", wheels["airlock-core"])
        assert_says_what_to_do(prepared, INTEGRATIONS)


def test_importing_an_integration_says_so_when_a_project_with_the_same_ones_was_installed_first(
    prepared: Environment, wheels: dict[str, Path], tmp_path: Path
) -> None:
    prepared.add(other_wheel("airlock-py", tmp_path))
    prepared.add(*wheels.values())

    assert_says_what_to_do(prepared, INTEGRATIONS)


@pytest.mark.parametrize("other", OTHERS)
def test_uninstalling_another_project_and_reinstalling_airlock_repairs_it(
    prepared: Environment, wheels: dict[str, Path], tmp_path: Path, other: str
) -> None:
    prepared.add(*wheels.values())
    prepared.add(other_wheel(other, tmp_path))

    prepared.uninstall(other)

    # It took files of ours with it: with `airlock-py`, the one that would say so for Django.
    assert_says_what_to_do(prepared, INTEGRATIONS[:-1] if other == "airlock-py" else INTEGRATIONS)
    assert prepared.error("from airlock.integrations.django import AirlockMiddleware").startswith("ImportError: ")

    prepared.add("--force-reinstall", *wheels.values())
    prepared.use(*USE)


@only_uv
def test_importing_an_integration_says_so_when_airlock_core_was_uninstalled(
    prepared: Environment, wheels: dict[str, Path]
) -> None:
    prepared.add(*wheels.values())
    prepared.uninstall("airlock-core")

    assert_says_what_to_do(prepared, ["airlock.integrations.celery", "airlock.integrations.django"])
