"""What is recorded of an intent, and what cannot be."""

import datetime as dt
import sys
import uuid
from contextvars import ContextVar
from decimal import Decimal
from functools import partial

import pytest
from celery import Task, chord, group
from celery.signals import before_task_publish
from django.core.signing import Signer
from django.db.transaction import atomic
from django.utils.translation import gettext_lazy
from kombu.exceptions import EncodeError
from kombu.utils.json import register_type

import airlock
from airlock.integrations.executors.celery import CeleryExecutor
from airlock.integrations.outbox.models import Entry

pytestmark = [
    pytest.mark.usefixtures("database"),
    pytest.mark.django_db(transaction=True),
]

calls = []


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


def note(*args, **kwargs):
    calls.append((args, kwargs))


class Notes:
    def of_object(self):
        calls.append("of object")

    @classmethod
    def of_class(cls):
        calls.append("of class")

    @staticmethod
    def of_nobody():
        calls.append("of nobody")


def payload():
    """What is stored of the only entry, as text."""
    return Entry.objects.get().payload


# -- Messages ----------------------------------------------------------------------------------------------------------


def test_message_is_made_in_the_context_of_the_enqueue_call(add, app, published, rows):
    seen = []

    def stamp(headers, **_):
        seen.append(tenant.get())
        headers["tenant"] = tenant.get()

    before_task_publish.connect(stamp)
    try:
        with airlock.scope():
            with atomic():
                token = tenant.set("acme")
                airlock.enqueue(add, 1)
                tenant.reset(token)
                assert seen == ["acme"]
            assert '"tenant": "acme"' in payload()
    finally:
        before_task_publish.disconnect(stamp)

    assert published() == [1]
    assert seen == ["acme"]


def test_id_of_the_intent_is_that_of_the_entry_and_of_the_task(add, app, rows):
    with airlock.scope():
        with atomic():
            intent = airlock.enqueue(add, 1)
        (row,) = rows()
        assert str(row.id) == intent.id
        assert f'"task_id": "{intent.id}"' in row.payload


def test_payload_is_signed_as_django_signs(add):
    with airlock.scope():
        with atomic():
            airlock.enqueue(add, 1)
        assert payload().startswith(Signer(salt="airlock.outbox").unsign(payload()))  # which raises if it is not


def test_arguments_changed_later_are_not_what_is_published(add, published):
    order = {"lines": [1]}
    with airlock.scope(), atomic():
        airlock.enqueue(add, order)
        order["lines"].append(2)

    assert published() == [{"lines": [1]}]


def test_arguments_changed_later_are_not_what_is_called(rows):
    order = {"lines": [1]}
    with airlock.scope(), atomic():
        airlock.enqueue(note, order)
        order["lines"].append(2)

    assert calls == [(({"lines": [1]},), {})]


tenant = ContextVar("tenant", default="nobody")


def note_tenant():
    calls.append(tenant.get())


def test_callable_is_called_in_the_context_of_the_enqueue_call(rows):
    with airlock.scope(), atomic():
        token = tenant.set("acme")
        airlock.enqueue(note_tenant)
        tenant.reset(token)

    assert calls == ["acme"]


class Money:
    def __init__(self, amount):
        self.amount = amount

    def __eq__(self, other):
        return self.amount == other.amount

    __hash__ = None


register_type(Money, "money", lambda money: money.amount, Money)

rich = [
    dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC),
    dt.date(2026, 1, 2),
    uuid.UUID("11111111-1111-4111-8111-111111111111"),
    Decimal("1.10"),
    Money(5),
]


@pytest.mark.parametrize("value", rich, ids=lambda value: type(value).__name__)
def test_values_that_kombu_knows_arrive(add, published, value):
    with airlock.scope(), atomic():
        airlock.enqueue(add, value)

    (arrived,) = published()
    assert (type(arrived), arrived) == (type(value), value)


@pytest.mark.parametrize("value", rich, ids=lambda value: type(value).__name__)
def test_values_that_kombu_knows_can_be_given_to_callables(rows, value):
    with airlock.scope(), atomic():
        airlock.enqueue(note, value, key=value)

    assert calls == [((value,), {"key": value})]


def test_lazy_strings_arrive_as_text(add, published):
    with airlock.scope(), atomic():
        airlock.enqueue(add, gettext_lazy("Yes"))

    assert published() == ["Yes"]


def test_countdown_counts_from_the_enqueue_call(add, published, rows):
    with airlock.scope():
        with atomic():
            before = dt.datetime.now(dt.UTC)
            airlock.enqueue(add, 1, _dispatch_options={"countdown": 60})
            after = dt.datetime.now(dt.UTC)
        text = payload()
    eta = text.partition('"eta": "')[2].partition('"')[0]

    minute = dt.timedelta(seconds=60)
    assert before + minute <= dt.datetime.fromisoformat(eta) <= after + minute


# -- Calls -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [Notes.of_class, Notes.of_nobody], ids=["class method", "static method"])
def test_methods_that_can_be_found_by_name_are_recorded(rows, task):
    with airlock.scope():
        with atomic():
            airlock.enqueue(task)
        assert '"path"' in payload()

    assert len(calls) == 1


@pytest.mark.parametrize(
    "make",
    [lambda add: add.s(1) | add.s(2), lambda add: group(add.s(1), add.s(2)), lambda add: chord([add.s(1)], add.s(2))],
    ids=["chain", "group", "chord"],
)
def test_canvas_is_recorded_as_celery_serialises_it(add, app, make, redis_broker, rows):
    app.conf.update({**redis_broker.celery, "task_default_queue": redis_broker.queue("canvas")})
    with airlock.scope():
        with atomic():
            airlock.enqueue(make(add))
        assert '"signature"' in payload()
        assert rows() != []

    assert redis_broker.take(redis_broker.queue("canvas")) != []
    assert rows() == []


def test_signature_is_recorded_as_a_message(add, published):
    with airlock.scope():
        with atomic():
            airlock.enqueue(add.s(1))
        assert '"message"' in payload()

    assert published() == [1]


def test_task_that_overrides_apply_async_is_called_at_dispatch(app, published):
    class Doubling(Task):
        def apply_async(self, args=None, *more, **options):
            calls.append(args)
            return super().apply_async([2 * args[0]], *more, **options)

    @app.task(name="shop.double", base=Doubling)
    def double(x): ...

    with airlock.scope():
        with atomic():
            airlock.enqueue(double, 2)
        assert calls == []
        assert '"call"' in payload()

    assert published() == [4]


# -- Executors ---------------------------------------------------------------------------------------------------------


def named(intent):
    calls.append(intent.args)


class Executing:
    def __call__(self, intent):
        calls.append(intent.args)


an_executor = Executing()


class Jobs:
    """A queue whose tasks keep their function in an attribute, and its executor."""

    class Task:
        def __init__(self, func):
            self.func = func

    def accepts(self, task):
        return isinstance(task, self.Task)

    def __call__(self, intent):
        calls.append((intent.id, intent.task, intent.args))


jobs = Jobs()


@Jobs.Task
def job(number): ...


def test_job_of_another_queue_is_recorded_and_keeps_the_id_of_its_intent():
    with airlock.scope(executor=jobs):
        with atomic():
            intent = airlock.enqueue(job, 1)
        assert f'"path": "{__name__}.job"' in payload()

    assert calls == [(intent.id, job, (1,))]


@pytest.mark.parametrize("executor", [named, an_executor], ids=["function", "object"])
def test_executor_that_can_be_found_by_its_name_is_recorded(executor, rows):
    with airlock.scope(executor=executor):
        with atomic():
            airlock.enqueue(note, 1)
        name = "named" if executor is named else "an_executor"
        assert f'"executor": "{__name__}.{name}"' in payload()

    assert calls == [(1,)]


def test_configured_executor_needs_no_name(settings):
    settings.AIRLOCK = {**settings.AIRLOCK, "EXECUTOR": named}
    with airlock.scope():
        with atomic():
            airlock.enqueue(note, 1)
        assert '"executor": null' in payload()

    assert calls == [(1,)]


# -- What cannot be recorded -------------------------------------------------------------------------------------------


@pytest.fixture
def refused(published, rows):
    """Checks that what an `enqueue` refuses leaves nothing behind."""

    def refused(task, *args, match, error=airlock.UsageError, executor=None, **options):
        with airlock.scope(executor=executor) as scope:
            with atomic():
                with pytest.raises(error, match=match):
                    airlock.enqueue(task, *args, **options)
                assert scope.intents == []
            assert rows() == []
        assert calls == published() == []

    return refused


def test_local_function_is_refused(refused):
    def local(): ...

    refused(local, match="Enqueue a function of a module")


@pytest.mark.parametrize(
    "task",
    [lambda: None, Notes().of_object, partial(note, 1)],
    ids=["lambda", "bound method", "partial"],
)
def test_callable_that_no_other_process_could_find_is_refused(refused, task):
    refused(task, match="cannot be recorded: another process has to find it by its name")


def test_function_that_was_replaced_under_its_name_is_refused(monkeypatch, refused):
    replaced = note
    monkeypatch.setattr(sys.modules[__name__], "note", print)
    refused(replaced, match="does not lead to it")


def test_arguments_of_a_callable_that_are_not_json_are_refused(refused):
    refused(note, object(), match="Give it ids instead of objects")


def test_arguments_of_a_task_that_are_not_json_are_refused(add, refused):
    refused(add, object(), error=EncodeError, match="not JSON serializable")


def test_pickle_is_refused(add, app, refused):
    app.conf.update(task_serializer="pickle", accept_content=["pickle", "json"])
    refused(add, 1, match="pickle")


@pytest.mark.parametrize("executor", [Executing(), CeleryExecutor()], ids=["object", "Celery's"])
def test_executor_that_cannot_be_found_by_name_is_refused(add, refused, executor):
    refused(note, 1, executor=executor, match="Make it an attribute of the module of its class, or configure it")


def test_what_a_policy_refuses_is_not_recorded(add, rows):
    seen = []
    before_task_publish.connect(receiver := lambda **_: seen.append(1))
    try:
        with airlock.scope() as scope, atomic():
            with pytest.raises(airlock.PolicyViolation), airlock.policy(airlock.AssertNoEffects()):
                airlock.enqueue(add, 1)
            assert scope.intents == []
    finally:
        before_task_publish.disconnect(receiver)

    assert seen == []


# -- Runs of tasks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["apply", "call"])
def test_follow_ups_of_a_task_are_recorded(add, app, how, published, rows):
    from airlock.integrations.celery import AirlockTask

    seen = []

    @app.task(base=AirlockTask, name="shop.charge")
    def charge():
        with atomic():
            airlock.enqueue(add, 1)
        seen.extend(rows())

    charge() if how == "call" else charge.apply(throw=True)

    assert [row.task for row in seen] == ["shop.add"]
    assert published() == [1]
    assert rows() == []


def test_eager_tasks_are_run_at_the_flush_with_their_follow_ups(app, rows):
    from airlock.integrations.celery import AirlockTask

    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    ran = []

    @app.task(base=AirlockTask, name="shop.second")
    def second():
        ran.append("second")

    @app.task(base=AirlockTask, name="shop.first")
    def first():
        ran.append("first")
        with atomic():
            airlock.enqueue(second)
        ran.append(sorted(row.task for row in rows()))

    with airlock.scope():
        with atomic():
            airlock.enqueue(first)
        assert ran == []

    assert ran == ["first", ["shop.first", "shop.second"], "second"]
    assert rows() == []
