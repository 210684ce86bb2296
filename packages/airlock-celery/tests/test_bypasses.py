"""Tasks that are published directly, where Airlock was to decide about them, are found."""

import inspect
import logging

import pytest
from celery import group
from kombu.exceptions import EncodeError

import airlock
from airlock.ext import register_fates
from airlock.integrations.celery import AirlockTask, report_bypasses
from airlock.integrations.executors.celery import celery_executor


class Transaction:
    state = "open"

    @property
    def transaction(self):
        return self

    def when_over(self, tell): ...


class Database:
    def __init__(self):
        self.open = ()

    def open_fates(self):
        return self.open

    def refresh(self, fates): ...


database = Database()
register_fates(database)


@pytest.fixture(autouse=True)
def _leave_as_found():
    yield
    report_bypasses("ignore")
    database.open = ()


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.WARNING, logger="airlock")
    return caplog


def here():
    """The place of the line after the one that calls this."""
    return f"{__file__}:{inspect.currentframe().f_back.f_lineno + 1}"


def test_a_call_in_a_scope_is_logged_with_its_line_once(notify, notified, log):
    report_bypasses("warn")
    with airlock.scope():
        for number in range(3):
            place = here()
            notify.delay(number)
    (message,) = [record.getMessage() for record in log.records if record.name == "airlock"]
    assert message == (
        f"shop.notify was published directly at {place}, inside Scope, so it goes out whatever becomes of that. "
        "Write airlock.enqueue(task, ...)."
    )
    assert notified() == [0, 1, 2]


@pytest.mark.parametrize(
    "publish",
    [
        lambda task: task.apply_async((1,)),
        lambda task: task.s(1).apply_async(),
        lambda task: task.app.send_task(task.name, (1,)),
        lambda task: group(task.s(1)).apply_async(),
        lambda task: (task.s(1) | task.s()).apply_async(),
    ],
    ids=["apply_async", "signature", "send_task", "group", "chain"],
)
def test_every_way_to_publish_is_found(publish, notify, log):
    report_bypasses("warn")
    with airlock.scope():
        publish(notify)
    assert [message.partition(" directly")[0] for message in log.messages if "directly" in message] == [
        "shop.notify was published"
    ]


def test_a_call_in_an_open_transaction_is_found(notify, log):
    report_bypasses("warn")
    database.open = (Transaction(),)
    notify.delay(1)
    assert "inside an open transaction" in log.text


def test_a_call_in_neither_is_right(notify, notified, log):
    report_bypasses("raise")
    notify.delay(1)
    with airlock.scope():
        pass
    notify.delay(2)
    assert notified() == [1, 2]
    assert "directly" not in log.text


@pytest.mark.parametrize("transport", ["memory", "redis_broker", "rabbitmq_broker"])
def test_raise_has_the_call_raise_and_nothing_published(transport, request, app, notify, notified):
    if transport != "memory":
        app.conf.update(request.getfixturevalue(transport).celery)
    notify.delay(0)
    report_bypasses("raise")
    for _ in range(2):
        with airlock.scope(), pytest.raises(EncodeError, match=r"test_bypasses.py:\d+, inside Scope"):
            notify.delay(1)
    report_bypasses("ignore")
    with airlock.scope():
        notify.delay(2)
    assert notified() == [0, 2]


def test_what_airlock_dispatches_is_left_alone(notify, notified, log):
    report_bypasses("raise")
    airlock.configure(executor=celery_executor)
    database.open = (Transaction(),)
    with airlock.detached():
        airlock.enqueue(notify, 1)
        airlock.enqueue(notify, 2)
        airlock.enqueue(notify.s(3))
        airlock.enqueue(group(notify.s(4), notify.s(5)))
    assert notified() == [1, 2, 3, 4, 5]
    assert "directly" not in log.text


@pytest.mark.parametrize("settings", [{"task_serializer": "pickle"}, {"task_protocol": 1}], ids=str)
def test_raise_takes_any_serializer_and_protocol(settings, app, notify, notified):
    app.conf.update(settings)
    report_bypasses("raise")
    with airlock.scope(), pytest.raises(EncodeError, match="inside Scope"):
        notify.delay(1)
    assert notified() == []


def test_what_is_recorded_is_left_alone(notify):
    class Recording:
        def prepare(self, intent, fates):
            return celery_executor.record(intent)

        def __call__(self, intent): ...

    report_bypasses("raise")
    with airlock.scope(executor=Recording()):
        assert airlock.enqueue(notify, 1).prepared.task == notify.name


def test_what_celery_publishes_itself_is_left_alone(app, notify, notified, work_off, log):
    report_bypasses("raise")

    @app.task(bind=True, base=AirlockTask, max_retries=1)
    def again(self):
        if not self.request.retries:
            raise self.retry(countdown=0)

    @app.task(bind=True, base=AirlockTask)
    def replaced(self):
        raise self.replace(notify.si(1))

    again.delay()
    replaced.delay()
    (again.si() | notify.si(3)).delay()
    assert set(work_off()) == {"RETRY", "SUCCESS", "PENDING"}
    assert sorted(notified()) == [1, 3]
    assert "directly" not in log.text


def test_a_call_in_the_run_of_a_task_is_found(app, notify, work_off, log):
    report_bypasses("warn")

    @app.task(base=AirlockTask)
    def work():
        notify.delay(1)

    work.delay()
    assert work_off() == ["SUCCESS"]
    assert "shop.notify was published directly" in log.text
