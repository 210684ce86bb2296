"""The recorded wish for one effect."""

import functools
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

import airlock


def send_email(*args, **kwargs):
    pass


class Mailer:
    def send(self):
        pass

    @staticmethod
    def send_static():
        pass

    @classmethod
    def send_for_class(cls):
        pass

    def __call__(self):
        pass


class RegisteredTask:
    """What a task queue makes of a function: a callable that goes by the name it is registered with."""

    name = "shop.tasks.notify_warehouse"

    def __call__(self):
        pass


class WrappingTask:
    """What other queues make of a function: it keeps the function in an attribute, and has a short name, or none."""

    name = "registered"

    def __init__(self, **wrapped):
        vars(self).update(wrapped)

    def __call__(self):
        pass


@pytest.fixture
def enqueue():
    """`airlock.enqueue`, in a scope whose intents never go out."""
    with airlock.scope(airlock.DropAll()):
        yield airlock.enqueue


# What it is


def test_intents_are_compared_and_hashed_by_identity(enqueue):
    first, second = enqueue(send_email, [1], mapping={}), enqueue(send_email, [1], mapping={})
    assert first == first
    assert first != second
    assert len({first, second, first}) == 2


def test_an_id_is_unique_and_stays(enqueue):
    first, second = enqueue(send_email, 1), enqueue(send_email, 1)
    assert first.id == first.id
    assert first.id != second.id
    assert str(uuid.UUID(first.id)) == first.id


def test_an_intent_made_by_hand_is_like_one_that_was_enqueued(enqueue):
    made = airlock.Intent(send_email, (1,), {"a": 2}, name="hello", origin="here", dispatch_options={"queue": "x"})
    enqueued = enqueue(send_email, 1, a=2, _name="hello", _origin="here", _dispatch_options={"queue": "x"})
    for name in PROPERTIES:
        assert (getattr(made, name) == getattr(enqueued, name)) is (name not in ("id", "policies"))
    assert made.policies == ()
    assert made.passes_local_policies()
    assert airlock.Intent(send_email).kwargs == {}


PROPERTIES = ["id", "task", "args", "kwargs", "name", "full_name", "origin", "dispatch_options"]
PROPERTIES += ["policies", "local_policies"]


@pytest.mark.parametrize("name", PROPERTIES)
def test_attributes_are_read_only(enqueue, name):
    intent = enqueue(send_email, 1)
    with pytest.raises(AttributeError):
        setattr(intent, name, None)
    with pytest.raises(AttributeError):
        delattr(intent, name)


def test_arguments_and_options_are_read_only(enqueue):
    intent = enqueue(send_email, key=1, _dispatch_options={"queue": "emails"})
    with pytest.raises(TypeError):
        intent.kwargs["key"] = 2
    with pytest.raises(TypeError):
        intent.dispatch_options["queue"] = "other"
    with pytest.raises(AttributeError):
        intent.note = "nothing can be added"


def test_later_changes_to_what_was_given_change_nothing(enqueue):
    args, kwargs, options = [1], {"key": 1}, {"queue": "emails"}
    intent = enqueue(send_email, *args, _dispatch_options=options, **kwargs)
    args[0] = kwargs["key"] = options["queue"] = "changed"
    assert (intent.args, intent.kwargs, intent.dispatch_options) == ((1,), {"key": 1}, {"queue": "emails"})


# Names


@pytest.mark.parametrize(
    ("task", "name", "full_name"),
    [
        (send_email, "send_email", f"{__name__}.send_email"),
        (Mailer().send, "send", f"{__name__}.Mailer.send"),
        (Mailer.send_static, "send_static", f"{__name__}.Mailer.send_static"),
        (Mailer.send_for_class, "send_for_class", f"{__name__}.Mailer.send_for_class"),
        (Mailer, "Mailer", f"{__name__}.Mailer"),
        (Mailer(), "Mailer", f"{__name__}.Mailer"),
        (RegisteredTask(), "notify_warehouse", "shop.tasks.notify_warehouse"),
        (WrappingTask(func=send_email), "send_email", f"{__name__}.send_email"),
        (WrappingTask(fn=send_email), "send_email", f"{__name__}.send_email"),
        (WrappingTask(func="no function"), "registered", "registered"),
        (functools.partial(send_email, 1), "send_email", f"{__name__}.send_email"),
        (functools.partial(functools.partial(RegisteredTask()), 1), "notify_warehouse", "shop.tasks.notify_warehouse"),
        (lambda: None, "<lambda>", f"{__name__}.<lambda>"),
        (print, "print", "builtins.print"),
        (str.upper, "upper", "builtins.str.upper"),
        ([].append, "append", "builtins.list.append"),
        (Mock(), "Mock", "unittest.mock.Mock"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_a_task_gives_its_intent_a_short_and_a_full_name(enqueue, task, name, full_name):
    intent = enqueue(task)

    assert (intent.name, intent.full_name) == (name, full_name)


def test_a_function_made_in_a_function_goes_by_its_own_name(enqueue):
    def send_later():
        pass

    intent = enqueue(send_later)

    assert (intent.name, intent.full_name) == ("send_later", f"{__name__}.send_later")


@pytest.mark.parametrize("task_name", ["shop.tasks.send_email", "send_email"])
def test_a_task_name_is_its_own_full_name(task_name):
    intent = airlock.Intent(task_name)
    assert (intent.name, intent.full_name) == ("send_email", task_name)


def test_a_given_name_replaces_the_short_name_only(enqueue):
    intent = enqueue(send_email, _name="welcome mail v1.2")

    assert (intent.name, intent.full_name) == ("welcome mail v1.2", f"{__name__}.send_email")


# Origins and options


def test_an_origin_is_unknown_unless_asked_for(enqueue):
    assert enqueue(send_email).origin is None
    assert enqueue(send_email, _origin="checkout").origin == "checkout"


def test_capture_origin_finds_file_and_line_of_the_call(enqueue):
    airlock.configure(capture_origin=True)
    with airlock.scope():
        intent = airlock.enqueue(
            send_email,
        )
        line = test_capture_origin_finds_file_and_line_of_the_call.__code__.co_firstlineno + 3

        assert intent.origin == f"{__file__}:{line}"


def test_a_given_origin_wins_over_the_captured_one():
    airlock.configure(capture_origin=True)
    with airlock.scope():
        assert airlock.enqueue(send_email, _origin="checkout").origin == "checkout"
        assert airlock.enqueue(send_email, _name="other").origin.startswith(__file__)


def test_dispatch_options_are_empty_unless_given(enqueue):
    assert enqueue(send_email).dispatch_options == {}
    assert enqueue(send_email, _name="other").dispatch_options == {}
    assert enqueue(send_email, _dispatch_options={}).dispatch_options == {}
    assert enqueue(send_email, _dispatch_options={"countdown": 60}).dispatch_options == {"countdown": 60}


@pytest.mark.parametrize("nonsense", ["emails", 60, ["queue"], ""], ids=repr)
def test_dispatch_options_that_are_no_mapping_are_refused(enqueue, nonsense):
    with pytest.raises(TypeError, match="mapping"):
        enqueue(send_email, _dispatch_options=nonsense)
    assert airlock.get_current_scope().intents == []


# Descriptions


def test_str_reads_like_the_call(enqueue):
    assert str(enqueue(send_email)) == "send_email()"
    assert str(enqueue(send_email, 1, "two", key=[3])) == "send_email(1, 'two', key=[3])"
    assert str(enqueue(send_email, 1, _name="hello")) == "hello(1)"


def test_repr_is_exact(enqueue):
    with airlock.policy(airlock.AllowAll()):
        intent = enqueue(send_email, 1, key="value", _origin="here", _dispatch_options={"queue": "emails"})

    assert repr(intent) == (
        f"Intent(id={intent.id!r}, task={send_email!r}, args=(1,), kwargs={{'key': 'value'}}, name='send_email', "
        "origin='here', dispatch_options={'queue': 'emails'}, local_policies=(AllowAll(),))"
    )


def test_threads_that_ask_for_an_id_at_once_get_the_same():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            for _ in range(300):
                intent = airlock.Intent(abs)
                assert len(set(threads.map(lambda _, intent=intent: intent.id, range(4)))) == 1
    finally:
        sys.setswitchinterval(interval)


def test_an_intent_does_not_change_with_what_it_was_made_of():
    args, kwargs, options = [1], {"key": 2}, {"countdown": 3}
    intent = airlock.Intent(abs, args, kwargs, dispatch_options=options)
    args.append(9)
    kwargs["other"] = 9
    options["queue"] = "other"
    assert (intent.args, dict(intent.kwargs), dict(intent.dispatch_options)) == ((1,), {"key": 2}, {"countdown": 3})
