"""What: the judges of single intents, who is asked, in which order, and how often."""

import logging
from contextvars import copy_context

import pytest

import airlock


def send_email():
    pass


def notify_warehouse():
    pass


class Judge:
    """A policy that notes, under its name, what it observes and is asked."""

    def __init__(self, name, notes, allows=True):
        self.name = name
        self.notes = notes
        self.answer = allows

    def on_enqueue(self, intent):
        self.notes.append((self.name, "observes", intent.args))

    def allows(self, intent):
        self.notes.append((self.name, "is asked", intent.args))
        return self.answer


class UnhashableJudge(Judge):
    """Equal to all of its kind, as a dataclass of settings may be."""

    def __eq__(self, other):
        return type(other) is type(self)


def names(intents):
    return [intent.name for intent in intents]


def dispatched_under(policy):
    """The names of the dispatched ones of two intents."""
    with airlock.scope(policy) as scope:
        airlock.enqueue(send_email)
        airlock.enqueue(notify_warehouse)
    return names(scope.dispatched_intents)


# The policies Airlock comes with


def test_without_a_policy_everything_goes_out():
    assert dispatched_under(None) == ["send_email", "notify_warehouse"]


def test_allow_all_lets_everything_pass():
    assert dispatched_under(airlock.AllowAll()) == ["send_email", "notify_warehouse"]


def test_drop_all_records_and_drops():
    with airlock.scope(airlock.DropAll()) as scope:
        intent = airlock.enqueue(send_email)

    assert scope.intents == [intent]
    assert scope.dispatched_intents == scope.undispatched_intents == []
    assert scope.is_flushed


def test_assert_no_effects_refuses_at_the_call():
    with airlock.scope(airlock.AssertNoEffects()) as scope:
        with pytest.raises(airlock.PolicyViolation):
            airlock.enqueue(send_email)

        assert scope.intents == []


def test_assert_no_effects_allows_nothing_even_if_it_was_not_there_to_refuse():
    with airlock.scope(airlock.DropAll()):
        intent = airlock.enqueue(send_email)

    assert not airlock.AssertNoEffects().allows(intent)


BOTH_NAMES = ["send_email", f"{__name__}.send_email"]


@pytest.mark.parametrize("name", BOTH_NAMES, ids=["simple", "full"])
def test_block_tasks_drops_the_named(name):
    assert dispatched_under(airlock.BlockTasks({name})) == ["notify_warehouse"]


@pytest.mark.parametrize("name", BOTH_NAMES, ids=["simple", "full"])
def test_allow_tasks_drops_all_but_the_named(name):
    assert dispatched_under(airlock.AllowTasks([name])) == ["send_email"]


def test_a_part_of_a_name_matches_nothing():
    assert len(dispatched_under(airlock.BlockTasks({"send", "email", __name__, "tasks.send_email"}))) == 2


def test_names_given_to_enqueue_match_and_the_full_name_still_does():
    for name in ("hello", f"{__name__}.send_email"):
        with airlock.scope(airlock.AllowTasks({name})) as scope:
            airlock.enqueue(send_email, _name="hello")
        assert names(scope.dispatched_intents) == ["hello"]


@pytest.mark.parametrize("name", BOTH_NAMES, ids=["simple", "full"])
def test_block_tasks_may_refuse_at_the_call(name):
    with airlock.scope(airlock.BlockTasks({name}, raise_on_enqueue=True)) as scope:
        with pytest.raises(airlock.PolicyViolation):
            airlock.enqueue(send_email)
        airlock.enqueue(notify_warehouse)

    assert names(scope.intents) == names(scope.dispatched_intents) == ["notify_warehouse"]


@pytest.mark.parametrize("policy_class", [airlock.BlockTasks, airlock.AllowTasks])
def test_one_string_is_not_taken_for_a_collection_of_names(policy_class):
    with pytest.raises(TypeError, match=r"\['send_email'\]"):
        policy_class("send_email")


def test_later_changes_to_the_collection_of_names_change_nothing():
    blocked = {"send_email"}
    policy = airlock.BlockTasks(blocked)
    blocked.clear()

    assert dispatched_under(policy) == ["notify_warehouse"]


def test_log_on_flush_logs_each_intent_when_it_goes_out_and_not_before(caplog):
    caplog.set_level(logging.INFO)
    with airlock.scope(airlock.LogOnFlush()):
        intent = airlock.enqueue(send_email, _origin="views.py:12")
        unknown = airlock.enqueue(notify_warehouse)
        assert caplog.records == []

    assert [(record.name, record.levelname) for record in caplog.records] == [("airlock", "INFO")] * 2
    first, second = caplog.messages
    assert str(intent) in first
    assert intent.id in first
    assert "views.py:12" in first
    assert str(unknown) in second
    assert unknown.id in second


def test_log_on_flush_lets_everything_pass_and_logs_to_the_given_logger(caplog):
    caplog.set_level(logging.INFO)

    assert len(dispatched_under(airlock.LogOnFlush(logging.getLogger("shop.effects")))) == 2
    assert {record.name for record in caplog.records} == {"shop.effects"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (airlock.AllowAll(), "AllowAll()"),
        (airlock.DropAll(), "DropAll()"),
        (airlock.AssertNoEffects(), "AssertNoEffects()"),
        (airlock.BlockTasks({"b", "a"}), "BlockTasks(['a', 'b'], raise_on_enqueue=False)"),
        (airlock.AllowTasks({"b", "a"}), "AllowTasks(['a', 'b'])"),
        (airlock.LogOnFlush(logging.getLogger("shop")), "LogOnFlush(<Logger shop (WARNING)>)"),
    ],
    ids=repr,
)
def test_policies_describe_themselves(policy, expected):
    assert repr(policy) == expected


# Who is asked


def test_every_policy_in_force_is_asked_local_ones_innermost_first_then_the_scopes_outwards():
    notes = []

    def judge(name):
        return Judge(name, notes)

    with (
        airlock.policy(judge("around all")),
        airlock.scope(judge("outer scope")),
        airlock.policy(judge("between")),
        airlock.scope(judge("inner scope")),
        airlock.policy(judge("local")),
        airlock.policy(judge("innermost")),
    ):
        airlock.enqueue(lambda n: notes.append("runs"), 1)
        observed = notes.copy()

    order = ["innermost", "local", "between", "around all", "inner scope", "outer scope"]
    assert observed == [(name, "observes", (1,)) for name in order]
    assert notes[len(observed) :] == [*((name, "is asked", (1,)) for name in order), "runs"]


def test_policies_of_all_scopes_are_asked_once_and_only_at_the_flush_that_dispatches():
    notes = []
    with airlock.scope(Judge("outer", notes)):
        with airlock.scope(Judge("middle", notes)), airlock.scope(Judge("inner", notes)):
            airlock.enqueue(lambda n: None, 1)
            airlock.enqueue(lambda n: None, 2)
        assert [note for note in notes if note[1] == "is asked"] == []

    asked = [note for note in notes if note[1] == "is asked"]
    assert asked == [(name, "is asked", (n,)) for n in (1, 2) for name in ("inner", "middle", "outer")]


def test_one_policy_in_force_several_times_is_asked_once():
    notes = []
    judge = Judge("judge", notes)
    with airlock.scope(judge), airlock.policy(judge), airlock.scope(judge), airlock.policy(judge):
        airlock.enqueue(lambda n: None, 1)

    assert notes == [("judge", "observes", (1,)), ("judge", "is asked", (1,))]


def test_policies_that_are_only_equal_are_each_asked():
    notes = []
    with airlock.scope(UnhashableJudge("outer", notes)), airlock.policy(UnhashableJudge("local", notes)):
        airlock.enqueue(lambda n: None, 1)

    assert [name for name, *_ in notes] == ["local", "outer", "local", "outer"]


def test_policies_are_not_asked_when_a_scope_discards():
    notes = []
    with pytest.raises(ValueError, match="wrong"), airlock.scope(Judge("scope", notes)):
        airlock.enqueue(lambda n: None, 1)
        raise ValueError("wrong")

    assert notes == [("scope", "observes", (1,))]


def test_each_intent_answers_to_the_policies_in_force_where_it_was_enqueued(ran):
    with airlock.scope():
        airlock.enqueue(ran.append, "before")
        with airlock.policy(airlock.DropAll()):
            airlock.enqueue(ran.append, "inside")
        airlock.enqueue(ran.append, "after")

    assert ran == ["before", "after"]


@pytest.mark.parametrize("who", ["local", "around", "inner", "outer"])
def test_one_policy_that_denies_is_enough(ran, who):
    answers = {name: name != who for name in ("local", "around", "inner", "outer")}
    policies = {name: Judge(name, [], allows) for name, allows in answers.items()}
    with (
        airlock.policy(policies["around"]),
        airlock.scope(policies["outer"]) as outer,
        airlock.scope(policies["inner"]),
        airlock.policy(policies["local"]),
    ):
        intent = airlock.enqueue(ran.append, 1)

    assert ran == []
    assert outer.intents == [intent]
    assert outer.undispatched_intents == []


def test_being_captured_bypasses_no_policy(ran):
    with airlock.scope() as outer:
        with airlock.scope(airlock.DropAll()):
            dropped = airlock.enqueue(ran.append, 1)
        sent = airlock.enqueue(ran.append, 2)
        assert outer.intents == [dropped, sent]

    assert ran == [2]
    assert outer.dispatched_intents == [sent]
    assert outer.undispatched_intents == []


def test_an_enclosing_policy_refuses_at_the_call_in_a_nested_scope():
    with airlock.scope(airlock.AssertNoEffects()) as outer, airlock.scope() as inner:
        with pytest.raises(airlock.PolicyViolation):
            airlock.enqueue(send_email)

        assert inner.intents == outer.intents == []


def test_a_policy_whose_answer_raises_keeps_the_whole_flush_back(ran):
    class CannotTell(airlock.AllowAll):
        def allows(self, intent):
            if intent.args == (2,):
                raise LookupError("no idea")
            return True

    scope = airlock.scope(CannotTell())
    scope.enter()
    with airlock.policy(airlock.BlockTasks({"dropped"})):
        intents = [airlock.enqueue(ran.append, 1), airlock.enqueue(ran.append, 1, _name="dropped")]
    intents += [airlock.enqueue(ran.append, n) for n in (2, 3)]
    scope.exit()

    with pytest.raises(LookupError, match="no idea") as raised:
        scope.flush()
    assert ran == []
    assert scope.undispatched_intents == intents
    assert scope.dispatched_intents == []
    assert getattr(raised.value, "__notes__", []) == [], "it is no failed dispatch"
    with airlock.scope():
        airlock.enqueue(ran.append, "the policy is not current any more")
    assert len(ran) == 1


# Local policies


def test_a_local_policy_opens_no_scope():
    with airlock.policy(airlock.AllowAll()):
        assert airlock.get_current_scope() is None
        with pytest.raises(airlock.NoScopeError):
            airlock.enqueue(send_email)
    with airlock.scope() as scope, airlock.policy(airlock.AllowAll()):
        assert airlock.get_current_scope() is scope
        intent = airlock.enqueue(send_email)
        assert scope.own_intents == [intent]


def test_an_exception_ends_a_local_policy_as_well(ran):
    with airlock.scope():
        with pytest.raises(ValueError, match="wrong"), airlock.policy(airlock.DropAll()):
            raise ValueError("wrong")
        airlock.enqueue(ran.append, 1)

    assert ran == [1]


def test_a_local_policy_outlived_by_a_scope_leaves_it_current(ran):
    def take_part():
        scope = airlock.scope()
        with airlock.policy(airlock.BlockTasks({"blocked"})):
            scope.enter()
        assert airlock.get_current_scope() is scope
        airlock.enqueue(ran.append, 1, _name="blocked")
        airlock.enqueue(ran.append, 2)
        scope.exit()
        scope.flush()

    copy_context().run(take_part)
    assert ran == [2]


def test_local_policies_of_an_intent_are_its_local_ones_innermost_first():
    inner, outer = airlock.AllowAll(), airlock.DropAll()
    with airlock.policy(outer), airlock.scope(airlock.AllowAll()):
        assert airlock.enqueue(send_email).local_policies == (outer,)
        with airlock.policy(inner):
            intent = airlock.enqueue(send_email)

    assert intent.local_policies == (inner, outer)


@pytest.mark.parametrize(
    ("local", "of_the_scope", "passes"),
    [(True, False, True), (False, True, False)],
    ids=["denied by the scope alone", "denied locally"],
)
def test_an_intent_can_be_asked_whether_it_passes_its_local_policies(local, of_the_scope, passes):
    with airlock.scope(Judge("scope", [], of_the_scope)), airlock.policy(Judge("local", [], local)):
        intent = airlock.enqueue(send_email)
        assert intent.passes_local_policies() is passes


def test_an_intent_without_local_policies_passes_them():
    with airlock.scope(airlock.DropAll()):
        assert airlock.enqueue(send_email).passes_local_policies()


# What is no policy


@pytest.mark.parametrize("put_in_force", [airlock.scope, airlock.policy], ids=["scope", "policy"])
@pytest.mark.parametrize(
    ("nonsense", "advice"),
    [(airlock.DropAll, r"DropAll\(\.\.\.\)"), ("drop everything", "drop everything"), (send_email, "send_email")],
    ids=["class", "string", "function"],
)
def test_what_is_no_policy_is_refused(put_in_force, nonsense, advice):
    with pytest.raises(TypeError, match=advice):
        put_in_force(nonsense)


def test_two_methods_make_a_policy(ran):
    class Dropping:
        def on_enqueue(self, intent):
            ran.append("observed")

        def allows(self, intent):
            return False

    with airlock.scope(Dropping()):
        airlock.enqueue(ran.append, "sent")

    assert ran == ["observed"]
