"""The setting `AIRLOCK`: what may be given, what is made of it, and what is said about what may not."""

import importlib.util
import subprocess
import sys

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.http import HttpResponse
from django.test import RequestFactory, override_settings

import airlock
from airlock.integrations.django import AirlockMiddleware, DjangoScope
from airlock.integrations.executors.sync import sync_executor

carried_out = []


def executor(intent):
    carried_out.append(intent.args[0])


class Executor:
    def __call__(self, intent):
        carried_out.append(intent.args[0])


class NotCallable:
    pass


class WithArguments(airlock.DropAll):
    def __init__(self, needed):
        self.needed = needed

    def __call__(self, intent):
        carried_out.append(intent.args[0])


class FalsyExecutor(list, Executor):
    """False to Python, as an empty recorder is."""


class FalsyPolicy(list, airlock.DropAll):
    """The same."""


class MyScope(DjangoScope):
    def __init__(self, policy=None, *, executor=None, colour="none"):
        super().__init__(policy, executor=executor)
        self.colour = colour


class KeywordOnly(DjangoScope):
    def __init__(self, *, executor=None):
        super().__init__(executor=executor)


def scope_factory(policy=None, *, executor=None, **arguments):
    return MyScope(policy, executor=executor, **arguments)


def drops_everything():
    return airlock.DropAll()


drop_all = airlock.DropAll()
blue = {"colour": "blue"}


def here(name):
    """The dotted path of something in this module."""
    return f"{__name__}.{name}"


@pytest.fixture(autouse=True)
def _nothing_carried_out():
    carried_out.clear()


def messages():
    """What the system checks say about us."""
    return [message for message in run_checks() if message.id.startswith("airlock.")]


def use(executed=True):
    """Enqueue in a scope as the setting says, which passes the checks."""
    assert messages() == []
    with airlock.scope() as scope:
        intent = airlock.enqueue(abs, 1)
    assert (scope.dispatched_intents == [intent]) == executed
    return scope


# What may be given


@pytest.mark.parametrize(
    "given",
    [here("executor"), here("Executor"), executor, Executor, Executor(), FalsyExecutor()],
    ids=["path", "path of a class", "function", "class", "instance", "falsy instance"],
)
def test_executor_may_be(settings, given):
    settings.AIRLOCK = {"EXECUTOR": given}
    use()

    assert carried_out == [1]


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
    ids=["path", "path of an instance", "path of a function", "class", "function", "instance", "made", "falsy"],
)
def test_policy_may_be(settings, given):
    settings.AIRLOCK = {"POLICY": given}
    use(executed=False)


SCOPE_IDS = ["path of a class", "path of a function", "class", "function"]


@pytest.mark.parametrize("given", [here("MyScope"), here("scope_factory"), MyScope, scope_factory], ids=SCOPE_IDS)
@pytest.mark.parametrize("kwargs", [here("blue"), blue, lambda: blue], ids=["path", "dictionary", "function"])
def test_scope_may_be(settings, given, kwargs):
    settings.AIRLOCK = {"SCOPE": given, "SCOPE_KWARGS": kwargs}
    scope = use()

    assert type(scope) is MyScope
    assert scope.colour == "blue"


def test_scope_may_have_keyword_only_arguments(settings):
    settings.AIRLOCK = {"SCOPE": here("KeywordOnly")}

    assert type(use()) is KeywordOnly


def test_scope_may_be_a_plain_one(settings):
    settings.AIRLOCK = {"SCOPE": "airlock.Scope", "EXECUTOR": executor, "POLICY": "airlock.AllowAll"}

    assert type(use()) is airlock.Scope
    assert carried_out == [1]


@pytest.mark.parametrize(
    ("given", "debug", "captured"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
@pytest.mark.parametrize("make_scope", [airlock.scope, DjangoScope])
def test_origin_is_captured_if_asked_for_or_else_in_debug(settings, given, debug, captured, make_scope):
    settings.DEBUG = debug
    settings.AIRLOCK = {"CAPTURE_ORIGIN": given}
    with make_scope():
        intent = airlock.enqueue(abs, 1)

    assert (intent.origin or "").startswith(__file__) == captured


@pytest.mark.parametrize(
    "given", [{}, {"EXECUTOR": None, "POLICY": None, "SCOPE": None, "SCOPE_KWARGS": None}], ids=repr
)
def test_what_is_not_set_is_the_default(settings, given):
    settings.AIRLOCK = given

    assert type(use()) is DjangoScope


def test_override_settings_works_at_once():
    with override_settings(AIRLOCK={"POLICY": "airlock.DropAll"}):
        use(executed=False)
    use()


def test_executor_that_equals_the_last_one_is_another(settings):
    for executor in (FalsyExecutor(), FalsyExecutor()):
        settings.AIRLOCK = {"EXECUTOR": executor}

        assert airlock.get_configuration().executor is executor


# What may not


size = {"size": 3}
BROKEN = {
    "unknown key": ({"EXECUTER": executor}, "airlock.E001", ["EXECUTER"], ["EXECUTOR", "POLICY", "SCOPE_KWARGS"]),
    "key that is no string": ({1: executor}, "airlock.E001", ["1"], ["EXECUTOR"]),
    "executor: no such module": ({"EXECUTOR": "no.such.module.run"}, "airlock.E002", ["EXECUTOR", "no.such"], ["path"]),
    "executor: no such name": ({"EXECUTOR": here("nothing")}, "airlock.E002", ["EXECUTOR", "nothing"], ["path"]),
    "executor: no path": ({"EXECUTOR": "executor"}, "airlock.E002", ["EXECUTOR", "'executor'"], ["path"]),
    "executor: relative path": ({"EXECUTOR": ".own.run"}, "airlock.E002", ["EXECUTOR", ".own.run"], ["path"]),
    "executor: relative name": ({"EXECUTOR": ".run"}, "airlock.E002", ["EXECUTOR", ".run"], ["path"]),
    "executor: empty": ({"EXECUTOR": ""}, "airlock.E002", ["EXECUTOR"], ["path"]),
    "not a dictionary": ("EXECUTOR", "airlock.E003", ["'EXECUTOR'"], ["dictionary"]),
    "None": (None, "airlock.E003", ["None"], ["dictionary"]),
    "executor: a number": ({"EXECUTOR": 42}, "airlock.E003", ["EXECUTOR", "42"], ["callable"]),
    "executor: its instances": ({"EXECUTOR": NotCallable}, "airlock.E003", ["EXECUTOR"], ["callable"]),
    "executor: needs arguments": ({"EXECUTOR": WithArguments}, "airlock.E003", ["needed"], ["instance"]),
    "policy: a number": ({"POLICY": 42}, "airlock.E003", ["POLICY", "42"], ["policy"]),
    "policy: its instances": ({"POLICY": NotCallable}, "airlock.E003", ["POLICY"], ["policy"]),
    "policy: what it makes": ({"POLICY": dict}, "airlock.E003", ["POLICY"], ["policy"]),
    "policy: needs arguments": ({"POLICY": "airlock.BlockTasks"}, "airlock.E003", ["names"], ["instance"]),
    "scope: a number": ({"SCOPE": 42}, "airlock.E003", ["SCOPE", "42"], ["airlock.Scope"]),
    "scope: another class": ({"SCOPE": "airlock.Intent"}, "airlock.E003", ["SCOPE"], ["airlock.Scope"]),
    "scope: what it makes": ({"SCOPE": lambda: 42}, "airlock.E003", ["SCOPE"], ["airlock.Scope"]),
    "scope kwargs: unknown": ({"SCOPE_KWARGS": size}, "airlock.E003", ["size"], ["SCOPE_KWARGS"]),
    "scope kwargs: of a class": ({"SCOPE": MyScope, "SCOPE_KWARGS": size}, "airlock.E003", ["size"], ["SCOPE_KWARGS"]),
    "scope kwargs: of a function": (
        {"SCOPE": scope_factory, "SCOPE_KWARGS": size},
        "airlock.E003",
        ["size"],
        ["SCOPE_KWARGS"],
    ),
    "scope kwargs: a list": ({"SCOPE_KWARGS": ["colour"]}, "airlock.E003", ["SCOPE_KWARGS"], ["dictionary"]),
    "scope kwargs: no names": ({"SCOPE_KWARGS": {1: 2}}, "airlock.E003", ["SCOPE_KWARGS"], ["dictionary"]),
    "carriers: no list": ({"CARRIERS": print}, "airlock.E003", ["CARRIERS"], ["list"]),
    "bypass: a word": ({"BYPASS": "log"}, "airlock.E003", ["BYPASS", "log"], ["warn"]),
    "redactor: no callable": ({"REDACTOR": 42}, "airlock.E003", ["REDACTOR", "42"], ["callable"]),
    "carriers: a number": ({"CARRIERS": [42]}, "airlock.E003", ["CARRIERS", "42"], ["context manager"]),
    "dispatch errors: a word": ({"DISPATCH_ERRORS": "stop"}, "airlock.E003", ["DISPATCH_ERRORS"], ["raise"]),
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


def test_what_a_scope_class_says_itself_is_a_check_error(settings):
    class Unready(DjangoScope):
        def __init__(self, policy=None, *, executor=None):
            raise ImproperlyConfigured("It has no tables. Run migrate.")

    settings.AIRLOCK = {"SCOPE": Unready}
    (message,) = messages()

    assert message.id == "airlock.E005"
    assert "It has no tables. Run migrate." in message.msg
    with pytest.raises(ImproperlyConfigured, match=r"^It has no tables. Run migrate.$"):
        airlock.scope()


def test_everything_that_is_wrong_is_said_at_once(settings):
    settings.AIRLOCK = {"EXECUTER": 1, "EXECUTOR": 2, "POLICY": "a.b", "CAPTURE_ORIGIN": 1}

    assert sorted(message.id[-4:] for message in messages()) == ["E001", "E002", "E003", "E003"]


def test_check_command_fails_and_says_what_to_do(settings):
    settings.AIRLOCK = {"EXECUTER": executor}

    with pytest.raises(SystemCheckError, match=r"(?s)airlock\.E001.*EXECUTER.*HINT: .*EXECUTOR"):
        call_command("check")


def test_wrong_arguments_given_in_code_are_a_type_error():
    with pytest.raises(TypeError, match="size"):
        airlock.scope(size=3)


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
@pytest.mark.parametrize("path", CELERY_PATHS)
def test_use_of_airlock_celery_where_it_is_missing_says_how_to_install_it(settings, path):
    settings.AIRLOCK = {"EXECUTOR": path}

    (message,) = messages()
    assert (message.id, message.hint) == ("airlock.E004", "Run: pip install airlock-celery")
    with pytest.raises(ImproperlyConfigured, match="pip install airlock-celery"):
        airlock.scope()


@pytest.mark.skipif(
    importlib.util.find_spec("airlock.integrations.executors.rq") is not None,
    reason="airlock-queues is installed here; `nox -s django` runs this without it",
)
@pytest.mark.parametrize(
    ("path", "extra"),
    [
        ("django_q.django_q_executor", "django-q2"),
        ("dramatiq.dramatiq_executor", "dramatiq"),
        ("huey.huey_executor", "huey"),
        ("rq.RQExecutor", "rq"),
    ],
)
def test_use_of_airlock_queues_where_it_is_missing_says_how_to_install_it(settings, path, extra):
    settings.AIRLOCK = {"EXECUTOR": f"airlock.integrations.executors.{path}"}

    (message,) = messages()
    assert (message.id, message.hint) == ("airlock.E004", f'Run: pip install "airlock-queues[{extra}]"')


@without_airlock_celery
def test_without_airlock_celery_the_executor_is_the_sync_one(ran):
    with airlock.scope():
        airlock.enqueue(ran.append, 1)

    assert ran == [1]


def test_path_whose_module_misses_another_names_that(settings, tmp_path, monkeypatch):
    (tmp_path / "own_executors.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    settings.AIRLOCK = {"EXECUTOR": "own_executors.run"}

    (message,) = messages()
    assert message.id == "airlock.E002"
    assert "no_such_library" in message.msg


# Layers: arguments, configure(), the setting, what is built in


def test_after_a_reset_the_setting_is_in_force_again(settings):
    settings.AIRLOCK = {"EXECUTOR": executor}
    airlock.configure(executor=sync_executor, scope_cls=airlock.Scope)
    use()
    assert carried_out == []
    airlock.reset_configuration()

    assert type(use()) is DjangoScope
    assert carried_out == [1]


def test_configured_scope_class_and_its_arguments_are_those_of_requests():
    airlock.configure(scope_cls=MyScope, scope_kwargs=blue)
    request = RequestFactory().get("/")
    AirlockMiddleware(lambda request: HttpResponse())(request)

    assert request.airlock_scope.colour == "blue"


def test_django_scope_made_by_hand_goes_by_the_setting(settings):
    settings.AIRLOCK = {"EXECUTOR": executor}
    with DjangoScope():
        airlock.enqueue(abs, 1)

    assert carried_out == [1]


def test_with_airlock_celery_its_executor_is_the_default(tmp_path):
    """In a process of its own, where a module of that name stands in if airlock-celery is not installed."""
    program = """
import sys, types
try:
    from airlock.integrations.executors.celery import celery_executor
except ImportError:
    stands_in = types.ModuleType("airlock.integrations.executors.celery")
    celery_executor = stands_in.celery_executor = print
    sys.modules[stands_in.__name__] = stands_in
from django.conf import settings
settings.configure(SECRET_KEY="x")
import airlock, airlock.integrations.django
assert airlock.get_configuration().executor is celery_executor
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_before_there_are_settings_scopes_are_plain(tmp_path):
    program = "import airlock, airlock.integrations.django; assert type(airlock.scope()) is airlock.Scope"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=tmp_path)


# The other checks

OURS = "airlock.integrations.django.AirlockMiddleware"


class Mine(AirlockMiddleware):
    """One of our own."""


@pytest.mark.parametrize(
    ("middleware", "found"),
    [
        ([OURS], []),
        ([here("Mine")], []),
        ([], ["airlock.W002"]),
        (["no.such.middleware", here("drops_everything")], ["airlock.W002"]),
        ([OURS, here("Mine")], ["airlock.W003"]),
    ],
    ids=["there", "subclass", "missing", "others", "twice"],
)
def test_check_warns_of_a_middleware_that_is_missing_or_twice(settings, middleware, found):
    settings.MIDDLEWARE = middleware

    assert [message.id for message in messages()] == found


def test_check_warns_of_a_misspelt_setting(settings):
    settings.AIRLOK = {"EXECUTOR": executor}

    (message,) = messages()
    assert (message.id, message.hint) == ("airlock.W001", "Did you mean AIRLOCK?")
