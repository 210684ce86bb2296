"""What can be run here: `nox` for all a contributor needs before a push, `nox -s NAME` for one session."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
# An interpreter that is not on the machine is skipped, in CI too, and never downloaded.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

# A shell that starts nox in the background has it, and all that it starts, ignore Ctrl-C, which some tests are about.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent
WORK = ROOT / ".nox"
REPORTS = WORK / "reports"
COVERAGE = WORK / "measured"  # not "coverage", where that session has its environment

CORE = ROOT / "packages" / "airlock-core"
CELERY = ROOT / "packages" / "airlock-celery"
DJANGO = ROOT / "packages" / "airlock-django"
ALL = ROOT / "packages" / "airlock-all"
PACKAGES = [CORE, CELERY, DJANGO, ALL]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
CELERIES = ["5.4", "5.5", "5.6", "5.7"]
# The oldest ones that the lowest Celery allows.
DRIVERS = ["kombu==5.3.4", "amqp==5.1.1", "redis==4.5.2"]
# What each Django's own metadata and release notes allow.
DJANGOS = {
    "4.2": ["3.11", "3.12"],
    "5.2": ["3.11", "3.12", "3.13", "3.14"],
    "6.0": ["3.12", "3.13", "3.14"],
    "6.1": ["3.12", "3.13", "3.14"],
}


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the packages and their typing tests with mypy (strict) and pyright."""
    session.install(*group("types"), *third_party(CELERY, DJANGO))
    sources = [package / "src" for package in (CORE, CELERY, DJANGO)]
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
    session.install(*group("core"), "-e", str(CORE))
    run_pytest(session, str(CORE / "tests"), measured="core")


@nox.session(python=PYTHONS)
@nox.parametrize("celery", CELERIES, ids=CELERIES)
def celery(session: nox.Session, celery: str) -> None:
    """Test airlock-celery on every supported Python and Celery."""
    session.install(*group("celery"), "-e", str(CORE), "-e", str(CELERY), f"celery~={celery}.0")
    run_pytest(session, str(CELERY / "tests"), measured=f"celery {celery}")


@nox.session
@nox.parametrize(
    "python,django",
    [
        nox.param(python, version, id=f"{version}-py{python}")
        for version, pythons in DJANGOS.items()
        for python in pythons
    ],
)
def django(session: nox.Session, django: str) -> None:
    """Test airlock-django on every supported Python and Django."""
    session.install(*group("django"), "-e", str(CORE), "-e", str(DJANGO), f"django~={django}.0")
    run_pytest(session, str(DJANGO / "tests"), measured=f"django {django}")


@nox.session(python=PYTHONS[0])
@nox.parametrize("package", [CELERY, DJANGO], ids=["celery", "django"])
def lowest(session: nox.Session, package: Path) -> None:
    """Test each package with the lowest version it allows of everything it depends on, airlock-core included."""
    wheels = build_wheels(session)
    session.install(
        *group(package.name.removeprefix("airlock-")),
        f"{package.name} @ {wheels[package].as_uri()}",
        *(f"{requirement.name}=={lowest_version(requirement)}" for requirement in dependencies(package)),
        *(DRIVERS if package is CELERY else []),
        "--find-links",
        str(wheels[package].parent),
    )
    run_pytest(session, str(package / "tests"))


@nox.session
def integration(session: nox.Session) -> None:
    """Test the packages together, installed from wheels, on real databases, brokers, workers and servers."""
    wheels = build_wheels(session)
    session.install(*group("integration"), *(f"{package.name} @ {wheel.as_uri()}" for package, wheel in wheels.items()))
    # Whether distributions join up is for the session `build`, which has an environment of its own for each case.
    run_pytest(session, "tests-integration", "--ignore=tests-integration/test_packaging.py", measured="integration")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site, and run every snippet in it."""
    session.install(*group("docs"), "-e", str(CORE), "-e", str(CELERY), "-e", str(DJANGO))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    run_pytest(session, "docs")


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


@nox.session(requires=["core", "celery", "django", "integration"], default=False)
def coverage(session: nox.Session) -> None:
    """Report what no test of the sessions `core`, `celery`, `django` and `integration` has run: nothing may be left."""
    session.install(*group("coverage"))
    data = {"COVERAGE_FILE": str(COVERAGE / ".coverage")}
    measured = [str(path) for path in COVERAGE.iterdir() if path.is_dir()]
    session.run("coverage", "combine", "--quiet", *measured, env=data)
    # If some tests had nothing to run on, or were not asked for, something is left.
    some = session.posargs or any(skipped for _, _, skipped in map(counts, _reports.values()))
    session.run("coverage", "report", *(["--fail-under=0"] if some else []), env=data)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the example shop and see that reality matches; `-- serve` leaves it running for a browser."""
    session.install(*group("demo"), "-e", str(CORE), "-e", str(CELERY), "-e", str(DJANGO))
    # Ctrl-C leaves it the time to stop its processes and remove what it has made.
    session.run("python", "examples/shop/demo.py", *session.posargs, interrupt_timeout=60, terminate_timeout=60)


@nox.session(default=False)
def model(session: nox.Session) -> None:
    """Compare many random programs with the model of what becomes of intents: `AIRLOCK_TEST_PROGRAMS`, or 20000."""
    session.install(*group("integration"), "-e", str(CORE), "-e", str(CELERY), "-e", str(DJANGO))
    programs = os.environ.get("AIRLOCK_TEST_PROGRAMS", "20000")
    run_pytest(session, "tests-integration/test_fate_model.py", env={"AIRLOCK_TEST_PROGRAMS": programs})


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure, and print the figures of benchmarks/README.md."""
    session.install(*group("bench"), str(CORE), str(CELERY), str(DJANGO))
    missed = []
    for script in ("benchmarks/run.py", "benchmarks/dispatch.py"):
        try:
            session.run("python", script, *session.posargs)
        except nox.command.CommandFailed:  # after it has printed all; the other one should, too
            missed.append(script)
    if missed:
        session.error(f"Something was missed in {' and '.join(missed)}")


def group(name: str) -> list[str]:
    """The requirements of a dependency group of pyproject.toml."""
    return list(nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), name))


def dependencies(package: Path) -> list[Requirement]:
    """What a distribution says it needs."""
    metadata = tomllib.loads((package / "pyproject.toml").read_text())
    return [Requirement(line) for line in metadata["project"]["dependencies"]]


def third_party(*packages: Path) -> list[str]:
    """What distributions need, besides each other."""
    siblings = {package.name for package in PACKAGES}
    return [str(needed) for package in packages for needed in dependencies(package) if needed.name not in siblings]


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
#: The parts of what `coverage` reports that have been measured so far.
_measured: set[str] = set()


def run_pytest(
    session: nox.Session, *args: str, measured: str | None = None, env: dict[str, str] | None = None
) -> None:
    """Run pytest for a session.

    `measured` names the part of what `coverage` reports that is measured by the way, which takes as long again. Another
    session that would measure the same part, on another Python, does without.
    """
    slug = re.sub(r"[^\w.]+", "-", session.name).strip("-")
    if not _reports:
        atexit.register(print_counts)
    _reports[session.name] = report = REPORTS / f"{slug}.xml"
    report.unlink(missing_ok=True)
    data = COVERAGE / slug
    shutil.rmtree(data, ignore_errors=True)

    # In two processes, the first of which to finish takes over what the other has not begun: tests in their order, so
    # that most of those which share a fixture are in one process.
    processes = ["--numprocesses=2", "--dist=worksteal"]
    command = ["python", "-m", "pytest", f"--junit-xml={report}", *processes, *args, *session.posargs]
    # Tests start hundreds of processes. Where nothing is to be compiled once and for all, each would do it anew.
    env = {"PYTHONDONTWRITEBYTECODE": "", **(env or {})}
    if measured and measured not in _measured:
        _measured.add(measured)
        data.mkdir(parents=True)
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
        # pytest did not come to run a test, which counts as one that failed.
        failed = 1
    return passed, failed, skipped


def print_counts() -> None:
    """Print how many tests passed, failed and were skipped, in each session and in all."""
    found = {name: counts(report) for name, report in _reports.items()}
    totals = [sum(column) for column in zip(*found.values(), strict=True)]
    rows = [("session", "passed", "failed", "skipped"), *((name, *map(str, each)) for name, each in found.items())]
    width = max(len(row[0]) for row in rows)
    print()
    for name, *cells in rows:
        print(f"{name:<{width}}  " + "  ".join(f"{cell:>8}" for cell in cells))
    print()
    print("{} passed, {} failed, {} skipped".format(*totals), flush=True)
