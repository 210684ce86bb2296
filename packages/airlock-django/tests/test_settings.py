"""The setting `AIRLOCK`: what may be given, what is made of it, and what is said about what may not."""

import importlib.util
import subprocess
import sys
from textwrap import dedent

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

import airlock
from airlock.integrations.django import DjangoScope, make_scope
from airlock.integrations.executors.sync import sync_executor

carried_out = []


def executor(intent):
    carried_out.append(intent.args[0])


class Executor:
    def __call__(self, intent):
        carried_out.append(intent.args[0])


class FalsyExecutor(list):
    def __call__(self, intent):
        carried_out.append(intent.args[0])


class NotCallable:
    pass


class WithArguments(airlock.DropAll):
    def __init__(self, needed):
        self.needed = needed

    def __call__(self, intent):
        carried_out.append(intent.args[0])


class FalsyPolicy(list, airlock.DropAll):
    pass


class MyScope(DjangoScope):
    def __init__(self, policy=None, *, executor=None, colour="none"):
        super().__init__(policy, executor=executor)
        self.colour = colour


def scope_factory(policy=None, *, executor=None, **arguments):
    return MyScope(policy, executor=executor, **arguments)


def drops_everything():
    return airlock.DropAll()


drop_all = airlock.DropAll()
blue = {"colour": "blue"}
not_importing = "no.such.module.Thing"


def here(name):
    """The dotted path of something in this module."""
    return f"{__name__}.{name}"


@pytest.fixture(autouse=True)
def _nothing_carried_out():
    carried_out.clear()


def messages():
    """What the system checks say about us."""
    return [message for message in run_checks() if message.id.startswith("airlock.")]


# What may be given


@pytest.mark.parametrize(
    "given",
    [here("executor"), here("Executor"), executor, Executor, Executor(), FalsyExecutor()],
    ids=["path of a function", "path of a class", "function", "class", "instance", "instance that is falsy"],
)
def test_executor_may_be(settings, given, ran):
    settings.AIRLOCK = {"EXECUTOR": given}
    with airlock.scope():
        airlock.enqueue(ran.append, 1)

    assert carried_out == [1]
    assert ran == []
    assert messages() == []


@pytest.mark.parametrize(
    "given",
    [
        "airlock.DropAll",
        here("drop_all"),
        here("drops_everything"),
        airlock.DropAll,
        drops_everything,
        airlock.DropAll(),
        WithArguments(1),
        FalsyPolicy(),
    ],
    ids=[
        "path of a class",
        "path of an instance",
        "path of a function",
        "class",
        "function",
        "instance",
        "instance that is callable",
        "instance that is falsy",
    ],
)
def test_policy_may_be(settings, given, ran):
    settings.AIRLOCK = {"POLICY": given}
    with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)

    assert len(scope.intents) == 1
    assert ran == []
    assert messages() == []


@pytest.mark.parametrize(
    "given",
    [here("MyScope"), here("scope_factory"), MyScope, scope_factory],
    ids=["path of a class", "path of a function", "class", "function"],
)
@pytest.mark.parametrize("kwargs", [here("blue"), blue, lambda: blue], ids=["path", "dictionary", "function"])
def test_scope_may_be(settings, given, kwargs, ran):
    settings.AIRLOCK = {"SCOPE": given, "SCOPE_KWARGS": kwargs}
    with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)

    assert type(scope) is MyScope
    assert scope.colour == "blue"
    assert ran == [1]
    assert messages() == []


def test_scope_may_be_a_plain_one(settings, ran):
    settings.AIRLOCK = {"SCOPE": "airlock.Scope", "EXECUTOR": executor, "POLICY": "airlock.AllowAll"}
    with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)

    assert type(scope) is airlock.Scope
    assert carried_out == [1]


@pytest.mark.parametrize(
    ("given", "debug", "captured"),
    [({}, False, False), ({}, True, True), (True, False, True), (False, True, False)],
    ids=["not DEBUG", "DEBUG", "True", "False, and DEBUG"],
)
@pytest.mark.parametrize("scope", ["airlock.Scope", None], ids=["plain scope", "DjangoScope"])
def test_origin_is_captured_if_asked_for_or_else_in_debug(settings, given, debug, captured, scope):
    settings.DEBUG = debug
    settings.AIRLOCK = {"SCOPE": scope} if given == {} else {"SCOPE": scope, "CAPTURE_ORIGIN": given}
    with airlock.scope():
        intent = airlock.enqueue(abs, 1)

    assert (intent.origin is not None) == captured
    if captured:
        assert intent.origin.startswith(__file__)


@pytest.mark.parametrize(
    "given", [{}, {"EXECUTOR": None, "POLICY": None, "SCOPE": None, "SCOPE_KWARGS": None}], ids=repr
)
def test_what_is_not_set_is_the_default(settings, given, ran):
    settings.AIRLOCK = given
    with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)

    assert type(scope) is DjangoScope
    assert ran == [1]
    assert messages() == []


def test_without_the_setting_everything_is_the_default(settings, ran):
    assert not hasattr(settings, "AIRLOCK")
    with airlock.scope() as scope:
        airlock.enqueue(ran.append, 1)

    assert type(scope) is DjangoScope
    assert ran == [1]
    assert messages() == []


# Who wins


def test_arguments_win_over_the_setting(settings, ran):
    settings.AIRLOCK = {"EXECUTOR": executor, "POLICY": airlock.DropAll(), "SCOPE": MyScope, "SCOPE_KWARGS": blue}
    for new_scope in (airlock.scope, make_scope):
        with new_scope(airlock.AllowAll(), executor=sync_executor, colour="red") as scope:
            airlock.enqueue(ran.append, 1)
        assert scope.colour == "red"

    assert ran == [1, 1]
    assert carried_out == []


def test_django_scope_made_by_hand_goes_by_the_setting(settings, ran):
    settings.AIRLOCK = {"EXECUTOR": executor, "CAPTURE_ORIGIN": True}
    with DjangoScope():
        intent = airlock.enqueue(ran.append, 1)
    with DjangoScope(airlock.DropAll(), executor=sync_executor):
        airlock.enqueue(ran.append, 2)
    settings.AIRLOCK = {"POLICY": airlock.DropAll()}
    with DjangoScope():
        airlock.enqueue(ran.append, 3)

    assert carried_out == [1]
    assert ran == []
    assert intent.origin.startswith(__file__)


def test_setting_wins_over_configure_and_what_it_leaves_open_is_configured(settings, ran):
    airlock.configure(executor=executor, policy=airlock.DropAll(), capture_origin=True)
    with airlock.scope():
        airlock.enqueue(ran.append, 1)
    settings.AIRLOCK = {"POLICY": airlock.AllowAll()}
    with airlock.scope():
        intent = airlock.enqueue(ran.append, 2)
    settings.AIRLOCK = {"POLICY": airlock.AllowAll(), "EXECUTOR": sync_executor}
    with airlock.scope():
        airlock.enqueue(ran.append, 3)

    assert carried_out == [2]
    assert ran == [3]
    assert intent.origin is not None


def test_configured_scope_class_is_that_of_requests_and_commands_unless_set(settings):
    airlock.configure(scope_cls=MyScope)
    assert type(make_scope()) is MyScope
    settings.AIRLOCK = {"SCOPE": "airlock.Scope"}
    assert type(make_scope()) is airlock.Scope


def test_override_settings_works_at_once(ran):
    with override_settings(AIRLOCK={"POLICY": "airlock.DropAll"}), airlock.scope():
        airlock.enqueue(ran.append, 1)
    with airlock.scope():
        airlock.enqueue(ran.append, 2)

    assert ran == [2]


# What may not


BROKEN = {
    "unknown key": ({"EXECUTER": executor}, "airlock.E001", ["EXECUTER"], ["EXECUTOR", "POLICY", "SCOPE_KWARGS"]),
    "key that is no string": ({1: executor}, "airlock.E001", ["1"], ["EXECUTOR"]),
    "executor: no such module": ({"EXECUTOR": "no.such.module.run"}, "airlock.E002", ["EXECUTOR", "no.such"], ["path"]),
    "executor: no such name": ({"EXECUTOR": here("nothing")}, "airlock.E002", ["EXECUTOR", "nothing"], ["path"]),
    "executor: no path": ({"EXECUTOR": "executor"}, "airlock.E002", ["EXECUTOR", "'executor'"], ["path"]),
    "executor: relative path": (
        {"EXECUTOR": ".executors.run"},
        "airlock.E002",
        ["EXECUTOR", ".executors.run"],
        ["path"],
    ),
    "executor: empty": ({"EXECUTOR": ""}, "airlock.E002", ["EXECUTOR"], ["path"]),
    "policy: no such name": ({"POLICY": "airlock.DropAl"}, "airlock.E002", ["POLICY", "DropAl"], ["path"]),
    "scope: no such name": ({"SCOPE": "airlock.Scop"}, "airlock.E002", ["SCOPE", "Scop"], ["path"]),
    "scope kwargs: no such name": ({"SCOPE_KWARGS": here("no")}, "airlock.E002", ["SCOPE_KWARGS"], ["path"]),
    "not a dictionary": ("EXECUTOR", "airlock.E003", ["'EXECUTOR'"], ["dictionary"]),
    "None": (None, "airlock.E003", ["None"], ["dictionary"]),
    "executor: a number": ({"EXECUTOR": 42}, "airlock.E003", ["EXECUTOR", "42"], ["callable"]),
    "executor: a module": ({"EXECUTOR": "airlock.integrations"}, "airlock.E003", ["EXECUTOR"], ["callable"]),
    "executor: its instances": ({"EXECUTOR": NotCallable}, "airlock.E003", ["EXECUTOR"], ["callable"]),
    "executor: needs arguments": ({"EXECUTOR": WithArguments}, "airlock.E003", ["needed"], ["instance"]),
    "policy: a number": ({"POLICY": 42}, "airlock.E003", ["POLICY", "42"], ["policy"]),
    "policy: its instances": ({"POLICY": NotCallable}, "airlock.E003", ["POLICY"], ["policy"]),
    "policy: what it makes": ({"POLICY": dict}, "airlock.E003", ["POLICY"], ["policy"]),
    "policy: needs arguments": ({"POLICY": "airlock.BlockTasks"}, "airlock.E003", ["names"], ["instance"]),
    "scope: a number": ({"SCOPE": 42}, "airlock.E003", ["SCOPE", "42"], ["airlock.Scope"]),
    "scope: another class": ({"SCOPE": "airlock.Intent"}, "airlock.E003", ["SCOPE"], ["airlock.Scope"]),
    "scope kwargs: a list": ({"SCOPE_KWARGS": ["colour"]}, "airlock.E003", ["SCOPE_KWARGS"], ["dictionary"]),
    "scope kwargs: no names": ({"SCOPE_KWARGS": {1: 2}}, "airlock.E003", ["SCOPE_KWARGS"], ["dictionary"]),
    "capture origin: a word": ({"CAPTURE_ORIGIN": "yes"}, "airlock.E003", ["CAPTURE_ORIGIN", "yes"], ["True", "False"]),
}
broken = pytest.mark.parametrize(("given", "check_id", "problem", "hint"), BROKEN.values(), ids=BROKEN)


@broken
def test_broken_setting_is_one_check_error_with_an_id_and_a_hint(settings, given, check_id, problem, hint):
    settings.AIRLOCK = given
    (message,) = messages()

    assert message.is_serious()
    assert message.id == check_id
    assert all(words in message.msg for words in problem)
    assert all(words in message.hint for words in hint)


@broken
def test_broken_setting_is_improperly_configured_in_use(settings, given, check_id, problem, hint):
    settings.AIRLOCK = given
    with pytest.raises(ImproperlyConfigured) as raised, airlock.scope():
        pass

    assert all(words in str(raised.value) for words in problem + hint)


def test_everything_that_is_wrong_is_said_at_once(settings):
    settings.AIRLOCK = {"EXECUTER": 1, "EXECUTOR": 2, "POLICY": "a.b", "CAPTURE_ORIGIN": 1}

    assert sorted(message.id for message in messages()) == [
        "airlock.E001",
        "airlock.E002",
        "airlock.E003",
        "airlock.E003",
    ]


def test_check_command_fails_and_says_what_to_do(settings):
    settings.AIRLOCK = {"EXECUTER": executor}

    with pytest.raises(SystemCheckError, match=r"(?s)airlock\.E001.*EXECUTER.*HINT: .*EXECUTOR"):
        call_command("check")


@pytest.mark.parametrize("scope", [None, MyScope, scope_factory])
def test_arguments_that_the_scope_does_not_take_are_an_error_in_the_check_and_in_use(settings, scope):
    settings.AIRLOCK = {"SCOPE": scope, "SCOPE_KWARGS": {"size": 3}}

    (message,) = messages()
    assert message.id == "airlock.E003"
    assert "size" in message.msg
    assert "SCOPE_KWARGS" in message.msg
    with pytest.raises(ImproperlyConfigured, match="size"):
        airlock.scope()


def test_arguments_given_in_code_that_the_scope_does_not_take_are_a_type_error(settings):
    with pytest.raises(TypeError, match="size"):
        airlock.scope(size=3)


def test_scope_that_is_made_must_be_one(settings):
    settings.AIRLOCK = {"SCOPE": lambda policy, *, executor: object()}

    (message,) = messages()
    assert message.id == "airlock.E003"
    assert "SCOPE" in message.msg
    with pytest.raises(ImproperlyConfigured, match="SCOPE"):
        airlock.scope()


@pytest.fixture
def project(tmp_path):
    """A project in a directory of its own; a function that writes its settings and runs `manage.py check` in it."""

    def check(airlock_setting, **modules):
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(dedent(source))
        (tmp_path / "project_settings.py").write_text(
            f"SECRET_KEY = 'x'\nINSTALLED_APPS = ['airlock.integrations.django']\nAIRLOCK = {airlock_setting!r}\n"
        )
        (tmp_path / "manage.py").write_text(
            "import os, sys\nfrom django.core.management import execute_from_command_line\n"
            "os.environ['DJANGO_SETTINGS_MODULE'] = 'project_settings'\nexecute_from_command_line(sys.argv)\n"
        )
        return subprocess.run(
            [sys.executable, "manage.py", "check"], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    return check


def test_manage_py_check_passes_with_a_setting_that_is_right(project):
    checked = project({"EXECUTOR": "executors.run"}, executors="def run(intent): pass")

    assert checked.returncode == 0, checked.stderr


def test_manage_py_check_names_what_is_wrong(project):
    checked = project({"EXECUTOR": "executors.runn", "POLCY": 1}, executors="def run(intent): pass")

    assert checked.returncode == 1
    assert "airlock.E001" in checked.stderr
    assert "airlock.E002" in checked.stderr
    assert "executors.runn" in checked.stderr
    assert "HINT" in checked.stderr


def test_manage_py_check_passes_on_what_is_missing_inside_of_a_module_that_exists(project):
    checked = project({"EXECUTOR": "executors.run"}, executors="import no_such_library")

    assert checked.returncode == 1
    assert "airlock.E002" in checked.stderr
    assert "no_such_library" in checked.stderr
    assert "pip install" not in checked.stderr


def test_what_an_installed_sibling_misses_is_not_taken_for_the_sibling(project, tmp_path):
    portion = tmp_path / "airlock" / "integrations" / "executors"
    portion.mkdir(parents=True)
    (portion / "celery.py").write_text("import no_such_library")

    checked = project({"EXECUTOR": CELERY_PATHS[0]})

    assert "airlock.E002" in checked.stderr
    assert "no_such_library" in checked.stderr
    assert "pip install" not in checked.stderr


CELERY_PATHS = [
    "airlock.integrations.executors.celery.celery_executor",
    "airlock.integrations.executors.celery.CeleryExecutor",
    "airlock.integrations.celery.AirlockTask",
]
without_airlock_celery = pytest.mark.skipif(
    importlib.util.find_spec("airlock.integrations.celery") is not None,
    reason="airlock-celery is installed here; `nox -s django` runs this without it",
)


@without_airlock_celery
def test_manage_py_check_says_how_to_install_airlock_celery_where_it_is_missing(project):
    checked = project({"EXECUTOR": CELERY_PATHS[0]})

    assert checked.returncode == 1
    assert "airlock.E004" in checked.stderr
    assert "pip install airlock-celery" in checked.stderr


@without_airlock_celery
@pytest.mark.parametrize("path", CELERY_PATHS)
def test_use_of_airlock_celery_where_it_is_missing_says_how_to_install_it(settings, path):
    settings.AIRLOCK = {"EXECUTOR": path}

    (message,) = messages()
    assert (message.id, message.hint) == ("airlock.E004", "Run: pip install airlock-celery")
    with pytest.raises(ImproperlyConfigured, match="pip install airlock-celery"):
        airlock.scope()
