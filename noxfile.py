"""What can be run here: `nox` for all a contributor needs before a push, `nox -s NAME` for one session."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2026.10.20"
nox.options.default_venv_backend = "uv|virtualenv"
# A Python that is not here is not downloaded. Its sessions are skipped, in CI too, and the last line says so.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"
os.environ["UV_PYTHON_DOWNLOADS"] = "never"

# A shell that starts nox in the background makes it ignore Ctrl-C, and all its children. Some tests need Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent
WORK = ROOT / ".nox"
REPORTS = WORK / "reports"
COVERAGE = WORK / "measured"  # not "coverage": a session's environment could be there

# What nox says became of each session. It is read at the end, and one from an earlier run would mislead.
RESULTS = WORK / "results.json"
WORK.mkdir(exist_ok=True)
RESULTS.unlink(missing_ok=True)
nox.options.report = str(RESULTS)

CORE = ROOT / "packages" / "airlock-core"
CELERY = ROOT / "packages" / "airlock-celery"
DJANGO = ROOT / "packages" / "airlock-django"
OUTBOX = ROOT / "packages" / "airlock-outbox"
QUEUES = ROOT / "packages" / "airlock-queues"
LINT = ROOT / "packages" / "airlock-lint"
ALL = ROOT / "packages" / "airlock-all"
MODULES = [CORE, CELERY, DJANGO, OUTBOX, QUEUES]  # all that have a part of `airlock`
PACKAGES = [*MODULES, LINT, ALL]
LOWEST = {"celery": CELERY, "django": DJANGO, "outbox": OUTBOX, "queues": QUEUES, "linter": LINT}

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
CELERIES = dict.fromkeys(["5.4", "5.5", "5.6", "5.7"], PYTHONS)
# It downloads real projects and rewrites them, which takes minutes.
WITHOUT_PROJECTS = [f"--ignore={LINT / 'tests' / 'test_projects.py'}"]
# The oldest ones that the lowest Celery allows.
DRIVERS = ["kombu==5.3.4", "amqp==5.1.1", "redis==4.5.2"]
# What each Django's own metadata and release notes allow.
DJANGOS = {
    "4.2": ["3.11", "3.12"],
    "5.2": ["3.11", "3.12", "3.13", "3.14"],
    "6.0": ["3.12", "3.13", "3.14"],
    "6.1": ["3.12", "3.13", "3.14"],
}
# One of the Django Debug Toolbar with each: the first of every major version.
TOOLBARS = {"4.2": "5.0", "5.2": "6.0", "6.0": "7.0", "6.1": "8.0"}


def every(versions: dict[str, list[str]]) -> list[tuple[str, str]]:
    """All pairs of a Python and a version that allows it."""
    return [(python, version) for version, pythons in versions.items() for python in pythons]


def enough(versions: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Fewer pairs: the newest version on every Python, and each older one on the first Python that it allows."""
    *older, newest = versions
    return [(versions[version][0], version) for version in older] + [(python, newest) for python in versions[newest]]


def named(name: str, pairs: list[tuple[str, str]]) -> list[str]:
    """The names of the sessions for such pairs."""
    return [f"{name}({version}-py{python})" for python, version in pairs]


def params(pairs: list[tuple[str, str]]) -> list[object]:
    """The arguments of the sessions for such pairs."""
    return [nox.param(python, version, id=f"{version}-py{python}") for python, version in pairs]


TESTS = [
    *(f"core-{python}" for python in PYTHONS),
    *named("celery", enough(CELERIES)),
    *named("django", enough(DJANGOS)),
    *named("outbox", enough(DJANGOS)),
    *(f"queues-{python}" for python in PYTHONS),
    *(f"linter-{python}" for python in PYTHONS),
    "integration",
]
# What a plain `nox` runs. `nox -s celery django outbox` runs every pair.
nox.options.sessions = ["lint", "types", *TESTS, "lowest", "docs", "build", "demo"]


def show_pyenv() -> None:
    """Put every Python that pyenv has installed into PATH, for its shims only offer those that are switched on."""
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    path = [entry for entry in os.environ["PATH"].split(os.pathsep) if Path(entry) != root / "shims"]
    for python in PYTHONS:
        releases = [version for version in root.glob(f"versions/{python}.*") if version.suffix[1:].isdecimal()]
        newest_first = sorted(releases, key=lambda version: int(version.suffix[1:]), reverse=True)
        path += [str(version / "bin") for version in newest_first]
    os.environ["PATH"] = os.pathsep.join(path)


show_pyenv()


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the packages and their typing tests with mypy (strict) and pyright."""
    session.install(*group("types"), *third_party(OUTBOX), *extras(QUEUES), *third_party(LINT))
    sources = [package / "src" for package in [*MODULES, LINT]]
    tests = sorted(ROOT.glob("packages/*/typing_tests"))
    session.run("mypy", *map(str, sources + tests))

    # `extraPaths` of [tool.pyright] says why. The links lead to the real files, and so do the paths in messages.
    joined = ROOT / "build" / "source"
    shutil.rmtree(joined, ignore_errors=True)
    for source in sources:
        shutil.copytree(
            source,
            joined,
            copy_function=lambda file, link: Path(link).symlink_to(file),
            ignore=shutil.ignore_patterns("__pycache__"),
            dirs_exist_ok=True,
        )
    session.run("pyright", str(joined), *map(str, tests))


@nox.session(python=PYTHONS)
def core(session: nox.Session) -> None:
    """Test airlock-core on every supported Python."""
    session.install(*group("core"), *editable(CORE))
    run_pytest(session, str(CORE / "tests"), measured="core")


@nox.session
@nox.parametrize("python,celery", params(every(CELERIES)))
def celery(session: nox.Session, celery: str) -> None:
    """Test airlock-celery on every supported Python and Celery; a plain `nox` runs some of them."""
    session.install(*group("celery"), *editable(CELERY), f"celery~={celery}.0")
    run_pytest(session, str(CELERY / "tests"), measured=f"celery {celery}")


@nox.session
@nox.parametrize("python,django", params(every(DJANGOS)))
def django(session: nox.Session, django: str) -> None:
    """Test airlock-django on every supported Python and Django; a plain `nox` runs some of them."""
    toolbar = f"django-debug-toolbar~={TOOLBARS[django]}.0"
    session.install(*group("django"), *editable(DJANGO), f"django~={django}.0", toolbar)
    run_pytest(session, str(DJANGO / "tests"), measured=f"django {django}")


@nox.session
@nox.parametrize("python,django", params(every(DJANGOS)))
def outbox(session: nox.Session, django: str) -> None:
    """Test airlock-outbox on every supported Python and Django, with the newest Celery; a plain `nox` runs some."""
    newest = [*CELERIES][-1]
    session.install(*group("outbox"), *editable(OUTBOX), f"django~={django}.0", f"celery~={newest}.0")
    run_pytest(session, str(OUTBOX / "tests"), measured=f"outbox {django}")


@nox.session(python=PYTHONS)
def queues(session: nox.Session) -> None:
    """Test airlock-queues on every supported Python, with the newest release of each queue."""
    session.install(*group("queues"), *editable(QUEUES), *extras(QUEUES))
    run_pytest(session, str(QUEUES / "tests"), measured="queues")


@nox.session(python=PYTHONS)
def linter(session: nox.Session) -> None:
    """Test airlock-lint on every supported Python, and on one of them with real projects."""
    session.install(*group("linter"), *editable(LINT))
    run_pytest(session, str(LINT / "tests"), *([] if session.python == PYTHONS[0] else WITHOUT_PROJECTS))


@nox.session(python=PYTHONS[0])
@nox.parametrize("name", [*LOWEST], ids=[*LOWEST])
def lowest(session: nox.Session, name: str) -> None:
    """Test each package with the lowest version it allows of everything it depends on, airlock-core included."""
    package = LOWEST[name]
    needed = extras(package) if package is QUEUES else []
    wheels = build_wheels(session)
    session.install(
        *group(name),
        f"{package.name} @ {wheels[package].as_uri()}",
        *(
            f"{requirement.name}=={lowest_version(requirement)}"
            for requirement in [*dependencies(package), *map(Requirement, needed)]
        ),
        *(DRIVERS if package in (CELERY, OUTBOX) else []),
        "--find-links",
        str(wheels[package].parent),
    )
    run_pytest(session, str(package / "tests"), *WITHOUT_PROJECTS)


@nox.session
def integration(session: nox.Session) -> None:
    """Test the packages together, installed from wheels, on real databases, brokers, workers and servers."""
    wheels = build_wheels(session)
    session.install(
        *group("integration"),
        *(f"{package.name} @ {wheel.as_uri()}" for package, wheel in wheels.items()),
        *extras(QUEUES),
    )
    # Whether distributions join up is for the session `build`, which has an environment of its own for each case.
    run_pytest(session, "tests-integration", "--ignore=tests-integration/test_packaging.py", measured="integration")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site, and run every snippet in it."""
    session.install(*group("docs"), *editable(OUTBOX), *editable(LINT), "-e", str(QUEUES), *extras(QUEUES))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    run_pytest(session, "docs", "--dist=loadfile")


@nox.session
def build(session: nox.Session) -> None:
    """Build all distributions, check them, and test that they join up however they are installed."""
    session.install(*group("build"))
    dist = WORK / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    for package in PACKAGES:
        # Without --sdist and --wheel, the wheel is built from the sdist.
        session.run("python", "-m", "build", "--installer=uv", "--outdir", str(dist), str(package), silent=True)
    session.run("twine", "check", "--strict", *map(str, sorted(dist.iterdir())))
    # The conftest.py beside it is about an installed airlock, which this session does not have.
    run_pytest(
        session,
        "--noconftest",
        "tests-integration/test_packaging.py",
        env={"AIRLOCK_TEST_DISTRIBUTIONS": str(dist)},
    )


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Run the tests once more, measured, then report what none of them has run: nothing may be left."""
    shutil.rmtree(COVERAGE, ignore_errors=True)
    COVERAGE.mkdir()
    _to_measure.update(["core", "queues", "integration"], map("celery {}".format, CELERIES))
    _to_measure.update(f"{name} {version}" for name in ("django", "outbox") for version in DJANGOS)
    for name in [*TESTS, "coverage-report"]:
        session.notify(name)


@nox.session(name="coverage-report", default=False)
def coverage_report(session: nox.Session) -> None:
    """The end of `coverage`."""
    session.install(*group("coverage"))
    data = {"COVERAGE_FILE": str(COVERAGE / ".coverage")}
    session.run("coverage", "combine", "--quiet", *map(str, COVERAGE.glob("*/")), env=data)
    # If tests were skipped, or only some were asked for, something is left.
    partial = session.posargs or any(skipped for _, _, skipped in map(counts, _reports.values()))
    session.run("coverage", "report", *(["--fail-under=0"] if partial else []), env=data)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the example shop and see that reality matches; `-- serve` leaves it running for a browser."""
    session.install(*group("demo"), *editable(OUTBOX))
    # Ctrl-C leaves it the time to stop its processes and remove what it has made.
    session.run("python", "examples/shop/demo.py", *session.posargs, interrupt_timeout=60, terminate_timeout=60)


@nox.session(default=False)
def model(session: nox.Session) -> None:
    """Compare many random programs with the model of what becomes of intents: `AIRLOCK_TEST_PROGRAMS`, or 20000."""
    session.install(*group("integration"), *editable(OUTBOX))
    programs = os.environ.get("AIRLOCK_TEST_PROGRAMS", "20000")
    run_pytest(session, "tests-integration/test_fate_model.py", env={"AIRLOCK_TEST_PROGRAMS": programs})


@nox.session(default=False)
def crash(session: nox.Session) -> None:
    """Kill writers, relays, brokers and databases under random programs, and see that the outbox loses nothing."""
    session.install(*group("integration"), *editable(OUTBOX))
    session.run("python", "tests-integration/outbox_crash.py", *session.posargs, interrupt_timeout=60)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure, and print the figures of benchmarks/README.md."""
    session.install(*group("bench"), *map(str, MODULES), str(LINT))
    missed = []
    # The last two are not made of pyperf, and know these options alone.
    known = [option for option in session.posargs if option in ("--check", "--fast", "--help")]
    options = {
        "benchmarks/run.py": session.posargs,
        "benchmarks/dispatch.py": session.posargs,
        "benchmarks/outbox.py": known,
        "benchmarks/lint.py": known,
    }
    for script, arguments in options.items():
        try:
            session.run("python", script, *arguments)
        except nox.command.CommandFailed:  # after it has printed all; the others should, too
            missed.append(script)
    if missed:
        session.error(f"Something was missed in {' and '.join(missed)}")


def group(name: str) -> list[str]:
    """The requirements of a dependency group of pyproject.toml."""
    return list(nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), name))


def dependencies(package: Path) -> list[Requirement]:
    """What a distribution says it needs, and what those of ours among that say they need."""
    metadata = tomllib.loads((package / "pyproject.toml").read_text())
    needed = {Requirement(line) for line in metadata["project"]["dependencies"]}
    needed.update(*(dependencies(sibling) for sibling in PACKAGES if sibling.name in {each.name for each in needed}))
    return sorted(needed, key=str)


def editable(package: Path) -> list[str]:
    """The arguments that install a distribution, and those of ours that it needs, from where they are."""
    names = {package.name, *(needed.name for needed in dependencies(package))}
    return [argument for sibling in PACKAGES if sibling.name in names for argument in ("-e", str(sibling))]


def third_party(package: Path) -> list[str]:
    """What a distribution needs, besides others of ours."""
    siblings = {sibling.name for sibling in PACKAGES}
    return [str(needed) for needed in dependencies(package) if needed.name not in siblings]


def extras(package: Path) -> list[str]:
    """What a distribution needs for its extras."""
    metadata = tomllib.loads((package / "pyproject.toml").read_text())
    return sorted(line for lines in metadata["project"].get("optional-dependencies", {}).values() for line in lines)


def lowest_version(requirement: Requirement) -> str:
    """The version that a requirement's `>=` names."""
    (lowest,) = (specifier.version for specifier in requirement.specifier if specifier.operator == ">=")
    return lowest


def build_wheels(session: nox.Session) -> dict[Path, Path]:
    """Build the wheel of each package, into a new directory."""
    session.install("hatchling>=1.26")
    wheels = {}
    directory = Path(session.create_tmp()).resolve() / "wheels"
    shutil.rmtree(directory, ignore_errors=True)
    for package in PACKAGES:
        with session.chdir(package):
            session.run_install("hatchling", "build", "-t", "wheel", "-d", str(directory), silent=True)
        (wheels[package],) = directory.glob(f"{package.name.replace('-', '_')}-*.whl")
    return wheels


#: The JUnit report of each session that has run pytest so far.
_reports: dict[str, Path] = {}
#: The parts that are to be measured for `coverage`.
_to_measure: set[str] = set()


def run_pytest(
    session: nox.Session, *args: str, measured: str | None = None, env: dict[str, str] | None = None
) -> None:
    """Run pytest for a session.

    `measured` names the part that `coverage` measures here: on the first Python only, as it takes twice as long.
    """
    slug = re.sub(r"[^\w.]+", "-", session.name).strip("-")
    _reports[session.name] = report = REPORTS / f"{slug}.xml"
    report.unlink(missing_ok=True)

    # Two workers; an idle one steals work. Each runs its tests in order, so most that share a fixture stay together.
    workers = ["--numprocesses=2", "--dist=worksteal"]
    command = ["python", "-m", "pytest", f"--junit-xml={report}", *workers, *args, *session.posargs]
    # Tests start hundreds of processes. They are slow where each has to compile its modules again.
    env = {"PYTHONDONTWRITEBYTECODE": "", **(env or {})}
    if measured in _to_measure:
        _to_measure.remove(measured)
        data = COVERAGE / slug
        data.mkdir()
        command[:1] = ["coverage", "run"]
        env |= {"COVERAGE_FILE": str(data / ".coverage"), "COVERAGE_RCFILE": str(ROOT / "pyproject.toml")}
    # After Ctrl-C the tests take some seconds to stop their processes and to remove their databases.
    session.run(*command, env=env, interrupt_timeout=60)


def counts(report: Path) -> tuple[int, int, int]:
    """How many tests passed, failed and were skipped."""
    passed = failed = skipped = 0
    for suite in ET.parse(report).iter("testsuite") if report.exists() else ():
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
        passed += int(suite.get("tests", 0))
    passed -= failed + skipped
    if not (passed or failed or skipped):
        # pytest ran no test at all. That counts as a failure.
        failed = 1
    return passed, failed, skipped


def skipped_sessions() -> tuple[set[str], list[str]]:
    """The Pythons that were not found, and the sessions that did not run for want of them."""
    pythons, sessions = set(), []
    for result in json.loads(RESULTS.read_text())["sessions"] if RESULTS.exists() else ():
        if missing := re.fullmatch(r"Python interpreter (\S+) not found", result["reason"] or ""):
            pythons.add(missing[1])
            sessions.append(result["signatures"][-1])
    return pythons, sessions


@atexit.register
def print_counts() -> None:
    """End with how many tests passed, failed and were skipped, and with the Pythons that were not found."""
    if _reports:
        found = {name: counts(report) for name, report in _reports.items()}
        totals = [sum(column) for column in zip(*found.values(), strict=True)]
        rows = [("session", "passed", "failed", "skipped"), *((name, *map(str, each)) for name, each in found.items())]
        width = max(len(row[0]) for row in rows)
        print()
        for name, *cells in rows:
            print(f"{name:<{width}}  " + "  ".join(f"{cell:>8}" for cell in cells))
        print()
        print("{} passed, {} failed, {} skipped".format(*totals))
    pythons, sessions = skipped_sessions()
    if pythons:
        print(f"Not found: Python {', '.join(sorted(pythons))}. Not run for want of it: {', '.join(sessions)}.")
    sys.stdout.flush()
