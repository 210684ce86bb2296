"""What the log says about intents that did not go out, and failures that are logged instead of raised."""

import io
import json
import logging

import pytest
import structlog
from pythonjsonlogger.json import JsonFormatter

import airlock

START = "{} of the intents of a Scope will not be dispatched. "


class Raising(airlock.Scope):
    dispatch_errors = "raise"


class Logging(airlock.Scope):
    dispatch_errors = "log"


def fails_on(*numbers, error=ValueError):
    """An executor that fails on some numbers."""

    def execute(intent):
        if intent.args[0] in numbers:
            raise error(f"broken {intent.args[0]}")

    return execute


@pytest.fixture
def log(caplog):
    """The lines of the log at INFO and above."""
    caplog.set_level(logging.INFO, logger="airlock")
    return caplog


@pytest.fixture
def broken_log():
    """Has the log fail at every error."""

    def broken(record):
        if record.levelno >= logging.ERROR:
            raise OSError("disk full")
        return True

    logger = logging.getLogger("airlock")
    logger.addFilter(broken)
    yield
    logger.removeFilter(broken)


# One line for each scope


def test_a_discard_is_one_line_with_names_count_and_reason(log):
    with pytest.raises(ValueError, match="wrong"), airlock.scope():
        for name in ("send_email", "notify", "send_email"):
            airlock.enqueue(int, _name=name)
        raise ValueError("wrong")
    assert log.messages == [START.format(3) + "send_email (2 times), notify: discarded, because ValueError was raised"]
    assert [record.levelname for record in log.records] == ["INFO"]


def test_a_scope_is_named_as_english_has_it(log):
    class OuterScope(airlock.Scope): ...

    with airlock.scope(airlock.DropAll(), _cls=OuterScope):
        airlock.enqueue(int)
    assert log.messages[0].startswith("1 of the intents of an OuterScope will not be dispatched.")


def test_a_discard_by_hand_or_hook_has_the_reason_it_was_given(log, left_with):
    left_with(1).discard()
    scope = left_with(2)
    scope.discard_reason = "the response had status 500"
    scope.discard()
    assert log.messages == [
        START.format(1) + "task_1: discarded, because the scope decided so",
        START.format(1) + "task_2: discarded, because the response had status 500",
    ]


def test_drops_are_one_line_that_names_each_policy(log, left_with):
    with airlock.policy(airlock.BlockTasks({"task_2"})):
        left_with(1, 2, 3, policy=airlock.BlockTasks({"task_3", "task_1"}), executor=print).flush()
    (message,) = log.messages
    assert message == START.format(3) + (
        "task_1, task_3: dropped by BlockTasks(['task_1', 'task_3'], raise_on_enqueue=False); "
        "task_2: dropped by BlockTasks(['task_2'], raise_on_enqueue=False)"
    )


def test_the_outermost_scope_tells_of_what_nested_ones_dropped(log):
    with airlock.scope(_cls=Logging):
        with airlock.scope(airlock.DropAll()):
            airlock.enqueue(int)
        assert log.messages == []
    assert log.messages == ["1 of the intents of a Logging will not be dispatched. int: dropped by DropAll()"]


def test_a_line_has_ten_names_at_most(log, left_with):
    left_with(*range(13)).discard()
    (message,) = log.messages
    assert message.startswith("13 of the intents of a Scope will not be dispatched. task_0, ")
    assert "task_9, 3 more: discarded" in message


def test_the_log_is_silent_about_what_went_out(log, left_with):
    left_with(1, 2, executor=print).flush()
    left_with().discard()
    assert log.messages == []


def test_nothing_is_said_below_info(caplog, left_with):
    caplog.set_level(logging.WARNING, logger="airlock")
    left_with(1).discard()
    assert caplog.messages == []


# Failures


def test_a_scope_that_logs_failures_goes_on(log, left_with):
    scope = left_with(1, 2, 3, 4, _cls=Logging, executor=fails_on(2, 3))
    first, second, third, fourth = scope.intents
    assert scope.flush() == [first, fourth]
    assert scope.undispatched_intents == [second, third]
    assert log.messages == [
        f"task_{n} (id {intent.id}, enqueued at views.py:{n}) was not dispatched"
        for n, intent in ((2, second), (3, third))
    ]
    assert [str(record.exc_info[1]) for record in log.records] == ["broken 2", "broken 3"]


def test_the_log_says_how_to_see_where_it_was_enqueued(log):
    with airlock.scope(_cls=Logging, executor=fails_on(1)):
        airlock.enqueue(abs, 1)
    assert "turn on capture_origin (CAPTURE_ORIGIN in Django)" in log.messages[0]


def test_a_scope_that_raises_failures_tries_all_before(log, left_with):
    scope = left_with(1, 2, 3, 4, _cls=Raising, executor=fails_on(2, 3))
    with pytest.raises(ValueError, match="broken 2") as raised:
        scope.flush()
    assert [intent.args for intent in scope.dispatched_intents] == [(1,), (4,)]
    assert [str(record.exc_info[1]) for record in log.records] == ["broken 3"]  # nobody else is told of that one
    which, others = raised.value.__notes__
    assert "task_2" in which
    assert "1 more" in others


@pytest.mark.parametrize("scope_class", [Logging, Raising])
def test_an_interruption_stops_a_scope_that_would_go_on(log, left_with, scope_class):
    scope = left_with(1, 2, 3, _cls=scope_class, executor=fails_on(2, error=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        scope.flush()
    assert [intent.args for intent in scope.undispatched_intents] == [(2,), (3,)]
    assert len(log.messages) == 1


@pytest.mark.usefixtures("broken_log")
def test_a_log_that_fails_loses_no_intent(left_with):
    scope = left_with(1, 2, 3, 4, _cls=Logging, executor=fails_on(1, 3))
    with pytest.raises(OSError, match="disk full"):
        scope.flush()
    assert [intent.args for intent in scope.dispatched_intents] == [(2,), (4,)]
    assert [intent.args for intent in scope.undispatched_intents] == [(1,), (3,)]


def test_an_unknown_outcome_is_logged_as_such(log, left_with):
    class Loses:
        def __call__(self, intent):
            raise AssertionError("there are several")

        def dispatch_many(self, intents):
            raise ConnectionError("lost")

    left_with(1, 2, _cls=Logging, executor=Loses()).flush()
    assert len(log.messages) == 2
    assert log.messages[0].endswith("enqueued at views.py:1) may or may not have been dispatched: nobody can tell")


# What structured logs make of it


def lines_of(formatter, stream):
    """Log through a formatter to a stream, and read the lines back."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("airlock")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        with airlock.scope(airlock.BlockTasks({"float"})):
            intent = airlock.enqueue(int, _origin="views.py:1")
            airlock.enqueue(float)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return intent, [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("formatter", ["structlog", "python-json-logger"])
def test_a_json_formatter_gets_the_facts(formatter):
    formatters = {
        "structlog": structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ExtraAdder(),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ]
        ),
        "python-json-logger": JsonFormatter(),
    }
    intent, lines = lines_of(formatters[formatter], io.StringIO())
    (dispatched,) = [line for line in lines if line["airlock_event"] == "dispatched"]
    (withheld,) = [line for line in lines if line["airlock_event"] == "withheld"]
    facts = {"airlock_event": "dispatched", "intent_id": intent.id, "task": "builtins.int", "origin": "views.py:1"}
    assert facts.items() <= dispatched.items()
    assert dispatched["reason"] is None
    assert dispatched["scope"] == withheld["scope"]
    assert [(facts["task"], facts["airlock_event"]) for facts in withheld["intents"]] == [("builtins.float", "dropped")]
