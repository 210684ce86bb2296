"""What: the judges of single intents, who is asked, in which order, and how often."""

import logging

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


both_names = pytest.mark.parametrize("name", ["send_email", f"{__name__}.send_email"], ids=["simple", "full"])


# The policies Airlock comes with


@pytest.mark.parametrize("policy", [None, airlock.AllowAll(), airlock.LogOnFlush()], ids=repr)
def test_some_policies_let_everything_pass(policy):
    assert dispatched_under(policy) == ["send_email", "notify_warehouse"]


def test_drop_all_records_and_drops():
    with airlock.scope(airlock.DropAll()) as scope:
        intent = airlock.enqueue(send_email)
    assert scope.intents == [intent]
    assert scope.dispatched_intents == scope.undispatched_intents == []
    assert scope.is_flushed


def test_assert_no_effects_refuses_at_the_call_and_allows_nothing():
    with airlock.scope(airlock.AssertNoEffects()) as outer, airlock.scope() as inner:
        with pytest.raises(airlock.PolicyViolation):
            airlock.enqueue(send_email)
        assert inner.intents == outer.intents == []
    assert not airlock.AssertNoEffects().allows(airlock.Intent(send_email))


@both_names
def test_block_and_allow_tasks_take_either_name(name):
    assert dispatched_under(airlock.BlockTasks({name})) == ["notify_warehouse"]
    assert dispatched_under(airlock.AllowTasks([name])) == ["send_email"]


def test_a_part_of_a_name_matches_nothing():
    assert len(dispatched_under(airlock.BlockTasks({"send", "email", __name__, "tasks.send_email"}))) == 2


@pytest.mark.parametrize("name", ["hello", f"{__name__}.send_email"])
def test_a_given_name_matches_and_the_full_name_still_does(name):
    assert airlock.AllowTasks({name}).allows(airlock.Intent(send_email, name="hello"))


@both_names
def test_block_tasks_may_refuse_at_the_call(name):
    with airlock.scope(airlock.BlockTasks({name}, raise_on_enqueue=True)) as scope:
        with pytest.raises(airlock.PolicyViolation):
            airlock.enqueue(send_email)
        airlock.enqueue(notify_warehouse)
    assert names(scope.intents) == names(scope.dispatched_intents) == ["notify_warehouse"]


def test_later_changes_to_the_collection_of_names_change_nothing():
    blocked = {"send_email"}
    policy = airlock.BlockTasks(blocked)
    blocked.clear()
    assert dispatched_under(policy) == ["notify_warehouse"]


def test_log_on_flush_logs_each_intent_when_it_goes_out(caplog):
    caplog.set_level(logging.INFO)
    with airlock.scope(airlock.LogOnFlush(logging.getLogger("shop"))), airlock.policy(airlock.LogOnFlush()):
        intent = airlock.enqueue(send_email, _origin="views.py:12")
        unknown = airlock.enqueue(notify_warehouse)
        assert caplog.records == []
    lines = [
        f"Flushing send_email (id {intent.id}, enqueued at views.py:12)",
        f"Flushing notify_warehouse (id {unknown.id}, enqueued at unknown origin)",
    ]
    assert caplog.record_tuples == [(name, logging.INFO, line) for line in lines for name in ("airlock", "shop")]


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


def test_every_policy_is_asked_local_ones_first_then_outwards():
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
        intent = airlock.enqueue(lambda n: notes.append("runs"), 1)
        observed = notes.copy()

    order = ["innermost", "local", "between", "around all", "inner scope", "outer scope"]
    assert observed == [(name, "observes", (1,)) for name in order]
    assert notes[len(observed) :] == [*((name, "is asked", (1,)) for name in order), "runs"]
    assert [policy.name for policy in intent.policies] == order
    assert [policy.name for policy in intent.local_policies] == order[:4]


def test_policies_are_asked_once_at_the_flush_that_dispatches():
    notes = []
    with airlock.scope(Judge("outer", notes)):
        with airlock.scope(Judge("middle", notes)), airlock.scope(Judge("inner", notes)):
            airlock.enqueue(int, 1)
            airlock.enqueue(int, 2)
        assert "is asked" not in [what for _, what, _ in notes]
    asked = [note for note in notes if note[1] == "is asked"]
    assert asked == [(name, "is asked", (n,)) for n in (1, 2) for name in ("inner", "middle", "outer")]


def test_one_policy_in_force_several_times_is_asked_once():
    notes = []
    judge = Judge("judge", notes)
    with airlock.scope(judge), airlock.policy(judge), airlock.scope(judge), airlock.policy(judge):
        airlock.enqueue(int, 1)
    assert notes == [("judge", "observes", (1,)), ("judge", "is asked", (1,))]


def test_policies_that_are_only_equal_are_each_asked():
    notes = []
    with airlock.scope(UnhashableJudge("outer", notes)), airlock.policy(UnhashableJudge("local", notes)):
        airlock.enqueue(int, 1)
    assert [name for name, *_ in notes] == ["local", "outer", "local", "outer"]


def test_policies_are_not_asked_when_a_scope_discards():
    notes = []
    with pytest.raises(ValueError, match="wrong"), airlock.scope(Judge("scope", notes)):
        airlock.enqueue(int, 1)
        raise ValueError("wrong")
    assert notes == [("scope", "observes", (1,))]


@pytest.mark.parametrize("who", ["local", "around", "inner", "outer"])
def test_one_policy_that_denies_is_enough(ran, who):
    around, of_outer, of_inner, local = (Judge(name, [], name != who) for name in ("around", "outer", "inner", "local"))
    with airlock.policy(around), airlock.scope(of_outer) as outer, airlock.scope(of_inner), airlock.policy(local):
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


def test_a_policy_whose_answer_raises_keeps_the_whole_flush_back(ran, left_with):
    class CannotTell(airlock.AllowAll):
        def allows(self, intent):
            return intent.args[0] != 2 or bool(1 / 0)

    scope = left_with(1, 2, 3, policy=CannotTell(), executor=ran.append)
    with pytest.raises(ZeroDivisionError) as raised:
        scope.flush()
    assert ran == scope.dispatched_intents == []
    assert scope.undispatched_intents == scope.intents
    assert not hasattr(raised.value, "__notes__"), "it is no failed dispatch"
    with airlock.scope(executor=ran.append):
        airlock.enqueue(int)
    assert len(ran) == 1, "nothing is judged any more"


# Local policies


def test_a_local_policy_opens_no_scope():
    with airlock.policy(airlock.AllowAll()), pytest.raises(airlock.NoScopeError):
        airlock.enqueue(send_email)
    with airlock.scope() as scope, airlock.policy(airlock.AllowAll()):
        assert airlock.get_current_scope() is scope
        intent = airlock.enqueue(send_email)
        assert scope.own_intents == [intent]


def test_a_local_policy_judges_what_is_enqueued_inside_its_block(ran):
    with airlock.scope():
        airlock.enqueue(ran.append, "before")
        with pytest.raises(ValueError, match="wrong"), airlock.policy(airlock.DropAll()):
            airlock.enqueue(ran.append, "inside")
            raise ValueError("wrong")
        airlock.enqueue(ran.append, "after")
    assert ran == ["before", "after"]


def test_a_local_policy_that_was_not_entered_can_be_left():
    policy = airlock.policy(airlock.DropAll())
    policy.__exit__(None, None, None)
    with policy:
        pass
    with policy, pytest.raises(airlock.UsageError, match="in use"):
        policy.__enter__()


@pytest.mark.parametrize(("local", "of_the_scope"), [(True, False), (False, True)])
def test_an_intent_tells_whether_it_passes_its_local_policies(local, of_the_scope):
    with airlock.scope(Judge("scope", [], of_the_scope)):
        assert airlock.enqueue(send_email).passes_local_policies()
        with airlock.policy(Judge("local", [], local)):
            assert airlock.enqueue(send_email).passes_local_policies() is local


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


def test_a_policy_cannot_enqueue_under_a_local_policy_of_its_own(ran):
    class Schemer(airlock.AllowAll):
        def allows(self, intent):
            with airlock.policy(airlock.AllowAll()), airlock.scope():
                airlock.enqueue(ran.append, 2)
            return True

    scope = airlock.scope(Schemer())
    with pytest.raises(airlock.PolicyEnqueueError), scope:
        airlock.enqueue(ran.append, 1)
    assert ran == []
