import airlock
import pytest
from airlock.ext import open_fates, refresh_fates

import kiosk
from airlock_kiosk import boundary


@pytest.fixture(autouse=True)
def posts():
    kiosk.posts.clear()
    return kiosk.posts


def test_scope_waits_for_its_units_of_work(posts):
    with kiosk.unit_of_work():
        with airlock.scope():
            airlock.enqueue("pack", 42)
        assert posts == []

    assert posts == [[("pack", (42,), "none")]]


def test_abandoned_unit_of_work_drops_its_intents(posts):
    with airlock.scope() as scope:
        with kiosk.unit_of_work():
            airlock.enqueue("pack", 41)
        with pytest.raises(ValueError, match="declined"), kiosk.unit_of_work():
            airlock.enqueue("pack", 42)
            raise ValueError("the card was declined")

    assert [str(intent) for intent in scope.rolled_back_intents] == ["pack(42)"]
    assert posts == [[("pack", (41,), "none")]]


def test_what_is_open_can_be_asked_for():
    with kiosk.unit_of_work():
        (fate,) = open_fates()
        assert fate.state == "open"

    refresh_fates([fate])
    assert fate.state == "kept"


def test_messages_go_three_at_a_time_each_in_its_own_context(posts):
    with airlock.scope():
        for number in range(4):
            kiosk.request_id.set(f"request-{number}")
            airlock.enqueue("pack", number)
    kiosk.request_id.set("none")

    assert [len(messages) for messages in posts] == [3, 1]
    assert posts[0][1] == ("pack", (1,), "request-1")
    assert posts[1][0] == ("pack", (3,), "request-3")


def test_arguments_that_are_no_json_fail_at_the_call(posts):
    with airlock.scope(), pytest.raises(TypeError, match="not JSON serializable"):
        airlock.enqueue("pack", object())


@boundary
def view():
    airlock.enqueue("log", "view")
    return body()


def body():
    yield "first"
    airlock.enqueue("log", "body")
    yield "last"


def test_response_flushes_when_its_body_has_ended(posts):
    chunks = view()
    assert next(chunks) == "first"
    assert airlock.get_current_scope() is None  # that of the body is not ours
    assert posts == []

    assert list(chunks) == ["last"]
    assert posts == [[("log", ("view",), "none"), ("log", ("body",), "none")]]


def test_response_that_nobody_reads_to_the_end_discards(posts):
    chunks = view()
    next(chunks)
    chunks.close()

    assert posts == []


def test_error_outside_of_a_response_names_the_decorator():
    with pytest.raises(airlock.NoScopeError, match="@boundary"):
        airlock.enqueue("pack", 42)
