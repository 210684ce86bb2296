"""`airlock.testing` with Celery: tasks, names, signatures and eager runs."""

from unittest.mock import ANY

import pytest
from celery import chain, chord, group

import airlock
from airlock.integrations.celery import AirlockTask, LegacyTaskShim
from airlock.integrations.executors.celery import celery_executor


@pytest.fixture(autouse=True)
def _celery_executor():
    airlock.configure(executor=celery_executor)


@pytest.fixture
def pack(app):
    """A task that takes what it is."""

    @app.task(name="shop.pack", bind=True)
    def pack(self, order_id, fragile=False): ...

    return pack


@pytest.fixture
def process(app, notify):
    """A task with a follow-up."""

    @app.task(name="shop.process", base=AirlockTask)
    def process(order_id):
        airlock.enqueue(notify, order_id)
        if order_id < 0:
            raise ValueError("no such order")

    return process


@pytest.fixture
def effects(airlock_effects):
    with airlock.scope():
        yield airlock_effects


def test_nothing_is_published(airlock_effects, notify, notified):
    with airlock.scope():
        airlock.enqueue(notify, 1)
    airlock_effects.assert_enqueued(notify, 1)
    assert notified() == []


def test_a_task_is_matched_however_its_arguments_are_given(effects, pack):
    airlock.enqueue(pack, order_id=1)
    effects.assert_enqueued(pack, 1)
    effects.assert_enqueued(pack, 1, fragile=False)
    effects.assert_enqueued("shop.pack", ANY)
    effects.assert_enqueued("pack", 1, False)
    effects.assert_not_enqueued(pack, 2)


def test_arguments_that_do_not_fit_are_refused_as_ever(effects, pack):
    with pytest.raises(TypeError, match="order_id"):
        airlock.enqueue(pack)
    with pytest.raises(TypeError, match="is no call of pack"):
        effects.assert_not_enqueued(pack, order=1)


def test_a_task_is_known_by_its_name_and_a_name_by_its_task(effects, pack):
    airlock.enqueue("shop.pack", 1)
    airlock.enqueue("elsewhere.send", 2)
    effects.assert_enqueued(pack, order_id=1)
    effects.assert_enqueued("elsewhere.send", 2)
    effects.assert_enqueued("send", 2)


def test_a_signature_is_a_call_with_its_arguments(effects, pack):
    airlock.enqueue(pack.s(fragile=True), 1)
    airlock.enqueue(pack.si(2), "ignored")
    airlock.enqueue(pack, 3)
    effects.assert_enqueued(pack, 1, fragile=True)
    effects.assert_enqueued(pack.s(1, fragile=True))
    effects.assert_enqueued(pack, 2)
    effects.assert_enqueued(pack.s(3))
    effects.assert_not_enqueued(pack.s(4))
    effects.assert_enqueued(pack.s(), _times=3)


def test_a_signature_is_shown_with_its_arguments(effects, pack, notify):
    airlock.enqueue(pack.s(fragile=True), 1)
    airlock.enqueue(pack.si(1) | notify.si(2))
    shown = ["pack(1, fragile=True)", "chain(tasks=[shop.pack(1), shop.notify(2)])"]
    assert [str(intent) for intent in effects] == shown


def test_it_makes_no_difference_how_a_chain_was_made(effects, pack, notify):
    airlock.enqueue(pack.si(1) | notify.si(1))
    airlock.enqueue(chain(pack.si(1), notify.si(1)))
    airlock.enqueue(chain([pack.si(1), notify.si(1)]))
    effects.assert_enqueued(pack.si(1) | notify.si(1), _times=3)
    effects.assert_enqueued(chain(pack.si(1), notify.si(1)), _times=3)


def test_a_canvas_is_matched_as_a_whole(effects, pack, notify):
    airlock.enqueue(pack.si(1) | notify.si(1))
    effects.assert_enqueued(pack.si(1) | notify.si(1))
    effects.assert_not_enqueued(pack.si(1) | notify.si(2))
    effects.assert_not_enqueued(pack)


def test_a_task_that_is_called_has_its_follow_ups_counted(airlock_effects, process, notify):
    process(1)
    airlock_effects.assert_enqueued(notify, 1)
    with pytest.raises(ValueError, match="no such order"):
        process(-1)
    airlock_effects.assert_not_enqueued(notify, -1)


def test_an_eager_task_runs_and_its_follow_ups_are_counted(app, airlock_effects, process, notify):
    app.conf.task_always_eager = True
    process.delay(1)
    airlock_effects.assert_enqueued(notify, 1)


def test_calls_of_a_shim_are_counted(app, effects):
    @app.task(name="shop.remind", base=LegacyTaskShim)
    def remind(order_id): ...

    with pytest.deprecated_call():
        remind.delay(1)
    effects.assert_enqueued(remind, 1)


@pytest.mark.airlock(run=True)
def test_tasks_run_in_place_with_their_follow_ups(app, process, ran, waiting):
    @app.task(name="shop.begin", base=AirlockTask)
    def begin(order_id):
        ran.append(order_id)
        if order_id:
            airlock.enqueue(begin, order_id - 1)

    with airlock.scope():
        airlock.enqueue(begin, 2)
    assert ran == [2, 1, 0]
    assert waiting.take() == []


@pytest.mark.airlock(run=True)
def test_what_only_celery_can_run_fails_the_test_and_is_not_published(notify, waiting):
    canvases = [notify.si(1) | notify.si(2), group(notify.si(3)), chord([notify.si(4)], notify.si(5))]
    for task in [*canvases, notify.chunks([(6,)], 1), "shop.notify"]:
        with pytest.raises(airlock.DispatchError, match="which only a queue can run"), airlock.scope():
            airlock.enqueue(task)
    assert waiting.take() == []


@pytest.mark.airlock(executor=celery_executor)
def test_names_and_canvases_run_eagerly_by_celery(app, ran):
    app.conf.task_always_eager = True

    @app.task(name="shop.note")
    def note(number):
        ran.append(number)

    with airlock.scope():
        airlock.enqueue("shop.note", 1)
        airlock.enqueue(note.si(2) | note.si(3))
    assert ran == [1, 2, 3]


@pytest.fixture
def ran():
    return []
