"""The distributions join up under `airlock`, however they are installed.

Run by `nox -s build`, which says in the environment where the built distributions are.
"""

import importlib.util
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
NAMES = ["airlock-core", "airlock-celery", "airlock-django", "airlock-all"]

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
}


class Environment:
    """A new virtual environment, and the installer that works on it."""

    def __init__(self, directory: Path, installer: str, constraints: Path) -> None:
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(directory)], check=True)
        self.directory = directory
        self.python = str(directory / "bin" / "python")
        self._constraints = ["--constraint", str(constraints)]
        self._install_options = ["--quiet"]
        if installer == "pip":
            self._installer = [sys.executable, "-m", "pip", "--python", self.python]
            self._uninstall_options = ["--quiet", "--yes"]
        else:
            self._installer = ["uv", "pip"]
            self._install_options += ["--python", self.python]
            self._uninstall_options = ["--quiet", "--python", self.python]

    @property
    def site_packages(self) -> Path:
        (found,) = self.directory.glob("lib/python*/site-packages")
        return found

    def install(self, *names: str) -> None:
        """Install distributions by name, with all they need; those under test as wheels."""
        self._run([*self._installer, "install", *self._install_options, *self._constraints, *names])

    def add(self, *distributions: Path | str) -> None:
        """Install distributions from where they are, and nothing else."""
        self._run([*self._installer, "install", *self._install_options, "--no-deps", *map(str, distributions)])

    def uninstall(self, *names: str) -> None:
        self._run([*self._installer, "uninstall", *self._uninstall_options, *names])

    def installed(self) -> set[str]:
        """The names of all distributions in it."""
        code = "import importlib.metadata as m; print(*(d.metadata['Name'].lower() for d in m.distributions()))"
        return set(self._run([self.python, "-c", code]).split())

    def use(self, *names: str) -> None:
        """Use distributions, each in an interpreter of its own."""
        for name in names:
            self.run(USE[name])

    def run(self, code: str) -> str:
        """Run Python code in it, and return what that prints."""
        # -I keeps the present directory from the places to import from.
        return self._run([self.python, "-I", "-c", dedent(code)])

    def error(self, code: str) -> str:
        """Run Python code that raises, and return the last line of its traceback, which names the exception."""
        with pytest.raises(subprocess.CalledProcessError) as raised:
            self.run(code)
        return raised.value.stderr.strip().splitlines()[-1]

    def _run(self, command: list[str]) -> str:
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
    found = {}
    for name in NAMES:
        (found[name],) = distributions.glob(f"{name.replace('-', '_')}-*.whl")
    return found


@pytest.fixture
def environment(tmp_path: Path, wheels: dict[str, Path]) -> Iterator[Callable[[str], Environment]]:
    """A function that makes an empty `Environment`, which goes with the test."""
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("".join(f"{name} @ {wheel.as_uri()}\n" for name, wheel in wheels.items()))
    directory = tmp_path / "environment"
    yield lambda installer: Environment(directory, installer, constraints)
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with Celery and Django, and what these need."""
    directory = tmp_path_factory.mktemp("third_party")
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", str(directory)]
    subprocess.run([*command, "--compile-bytecode", "celery", "django"], check=True)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def prepared(environment: Callable[[str], Environment], third_party: Path) -> Callable[[str], Environment]:
    """A function that makes an `Environment` with all that our distributions need, and none of them."""

    def prepare(installer: str) -> Environment:
        made = environment(installer)
        (made.site_packages / "third_party.pth").write_text(str(third_party))
        return made

    return prepare


# What is in the distributions


def modules(wheel: Path) -> set[str]:
    """The files of a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_core_owns_the_package_and_none_of_the_integrations(wheels: dict[str, Path]) -> None:
    core = modules(wheels["airlock-core"])

    assert {"airlock/__init__.py", "airlock/py.typed", "airlock/integrations/executors/sync.py"} <= core
    assert {name for name in core if name.startswith("airlock/integrations/")} == {
        "airlock/integrations/executors/sync.py"
    }


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (
            "airlock-celery",
            (
                "airlock/integrations/celery/",
                "airlock/integrations/executors/celery.py",
                "airlock/integrations/executors/_celery_batch.py",
            ),
        ),
        ("airlock-django", ("airlock/integrations/django/",)),
    ],
)
def test_integration_carries_only_its_own_modules_and_says_that_they_are_typed(
    wheels: dict[str, Path], name: str, own: tuple[str, ...]
) -> None:
    files = modules(wheels[name])

    assert {file for file in files if not file.startswith(own)} == set()
    assert {f"{own[0]}__init__.py", f"{own[0]}py.typed"} <= files


def test_meta_package_carries_no_modules(wheels: dict[str, Path]) -> None:
    assert modules(wheels["airlock-all"]) == set()


@pytest.mark.parametrize("name", NAMES)
def test_sdist_carries_the_changelog_the_readme_and_the_licence(distributions: Path, name: str) -> None:
    (sdist,) = distributions.glob(f"{name.replace('-', '_')}-*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive}

    assert {"CHANGELOG.md", "README.md", "LICENSE", "pyproject.toml"} <= files


# Alone


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_airlock_celery_alone_brings_no_django(environment: Callable[[str], Environment], installer: str) -> None:
    alone = environment(installer)
    alone.install("airlock-celery")

    assert {"airlock-core", "airlock-celery", "celery"} <= alone.installed()
    assert alone.installed().isdisjoint({"airlock-django", "django", "airlock-all"})
    alone.use("airlock-core", "airlock-celery")


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_airlock_django_alone_brings_no_celery(environment: Callable[[str], Environment], installer: str) -> None:
    alone = environment(installer)
    alone.install("airlock-django")

    assert {"airlock-core", "airlock-django", "django"} <= alone.installed()
    assert alone.installed().isdisjoint({"airlock-celery", "celery", "airlock-all"})
    alone.use("airlock-core", "airlock-django")


def test_airlock_core_alone_brings_nothing(environment: Callable[[str], Environment]) -> None:
    alone = environment("uv")
    alone.install("airlock-core")

    assert alone.installed() == {"airlock-core"}
    alone.use("airlock-core")


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_airlock_all_brings_everything(environment: Callable[[str], Environment], installer: str) -> None:
    everything = environment(installer)
    everything.install("airlock-all")

    assert {*NAMES, "celery", "django"} <= everything.installed()
    everything.use(*USE)


# Together


@pytest.mark.parametrize("order", list(itertools.permutations(USE)), ids=" ".join)
def test_wheels_join_up_in_any_order(
    prepared: Callable[[str], Environment], wheels: dict[str, Path], order: tuple[str, ...]
) -> None:
    together = prepared("uv")
    for name in order:
        together.add(wheels[name])

    together.use(*USE)


@pytest.mark.parametrize(
    "editable", [names for count in (1, 2, 3) for names in itertools.combinations(USE, count)], ids=" ".join
)
def test_editable_installs_join_up_with_each_other_and_with_wheels(
    prepared: Callable[[str], Environment], wheels: dict[str, Path], editable: tuple[str, ...]
) -> None:
    together = prepared("uv")
    for name in USE:
        together.add(*(["--editable", ROOT / "packages" / name] if name in editable else [wheels[name]]))

    together.use(*USE)
    for name in USE:
        file = {"airlock-core": "airlock"}.get(name, f"airlock.integrations.{name.removeprefix('airlock-')}")
        path = Path(together.run(f"import {file} as module; print(module.__file__)").strip())
        assert path.is_relative_to(ROOT / "packages" / name if name in editable else together.directory)


@pytest.mark.parametrize("installer", ["pip", "uv"])
@pytest.mark.parametrize(("gone", "left"), [("airlock-celery", "airlock-django"), ("airlock-django", "airlock-celery")])
def test_uninstalling_one_leaves_the_others_working(
    prepared: Callable[[str], Environment], wheels: dict[str, Path], installer: str, gone: str, left: str
) -> None:
    together = prepared(installer)
    together.add(*wheels.values())
    together.use(*USE)

    together.uninstall(gone, "airlock-all")

    together.use("airlock-core", left)
    assert "Error: " in together.error(USE[gone])


# Beside another distribution's module `airlock`


@pytest.fixture(scope="session")
def unrelated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the unrelated distribution that is called `airlock` on the index.

    Its build script wants a `pip.req`, which pip has not had since 2018. With a stand-in for that it builds; it cannot
    be imported, for want of the App Engine SDK.
    """
    directory = tmp_path_factory.mktemp("unrelated")
    (directory / "pip.py").write_text(
        "class req:\n    parse_requirements = staticmethod(lambda *args, **kwargs: [])\n"
        "class download:\n    PipSession = object\n"
    )
    # Run by its path, the real pip comes before PYTHONPATH, but not so in the process that it starts for the build.
    real_pip = Path(importlib.util.find_spec("pip").origin).parent
    command = [sys.executable, str(real_pip), "wheel", "--no-deps", "--no-build-isolation", "airlock==0.0.13"]
    subprocess.run(command, check=True, cwd=directory, env={**os.environ, "PYTHONPATH": str(directory)})
    (wheel,) = directory.glob("airlock-*.whl")
    return wheel


@pytest.fixture(scope="session")
def importable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of some distribution that has a module `airlock`, which can be imported."""
    wheel = tmp_path_factory.mktemp("importable") / "airlock-1.0-py3-none-any.whl"
    metadata = {
        "METADATA": "Metadata-Version: 2.1\nName: airlock\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "airlock/__init__.py,,\n"
        + "".join(f"airlock-1.0.dist-info/{name},,\n" for name in ("METADATA", "WHEEL", "RECORD")),
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("airlock/__init__.py", "def open_door(): ...\n")
        for name, text in metadata.items():
            archive.writestr(f"airlock-1.0.dist-info/{name}", text)
    return wheel


IMPORTS = [
    "import airlock.integrations.celery",
    "import airlock.integrations.executors.celery",
    "import airlock.integrations.django",
]


def assert_says_what_to_do(environment: Environment) -> None:
    for line in IMPORTS:
        error = environment.error(line)
        assert error.startswith("ImportError: ")
        assert "`airlock`" in error
        assert "pip install --force-reinstall airlock-core" in error


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_airlock_works_when_installed_over_an_unrelated_one(
    prepared: Callable[[str], Environment], wheels: dict[str, Path], unrelated: Path, installer: str
) -> None:
    both = prepared(installer)
    both.add(unrelated)
    both.add(*wheels.values())

    both.use(*USE)


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_importing_an_integration_says_so_when_another_module_has_overwritten_airlock(
    prepared: Callable[[str], Environment], wheels: dict[str, Path], importable: Path, installer: str
) -> None:
    both = prepared(installer)
    both.add(*wheels.values())
    both.add(importable)

    assert_says_what_to_do(both)


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_importing_an_integration_says_so_when_uninstalling_the_unrelated_one_took_files_of_airlock_with_it(
    prepared: Callable[[str], Environment], wheels: dict[str, Path], unrelated: Path, installer: str
) -> None:
    damaged = prepared(installer)
    damaged.add(*wheels.values())
    damaged.add(unrelated)
    damaged.uninstall("airlock")

    assert_says_what_to_do(damaged)

    # And that repairs it.
    damaged.add("--force-reinstall", wheels["airlock-core"])
    damaged.use(*USE)


def test_importing_an_integration_says_so_when_airlock_core_was_uninstalled(
    prepared: Callable[[str], Environment], wheels: dict[str, Path]
) -> None:
    damaged = prepared("uv")
    damaged.add(*wheels.values())
    damaged.uninstall("airlock-core")

    assert_says_what_to_do(damaged)
