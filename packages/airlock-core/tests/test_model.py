"""Random programs against a small model of what scopes promise.

A program is a few strands that take turns: plain code, and scoped generators, sync and async, which any strand may
start and any other may step. A strand opens blocks (scopes and local policies), ends them in any order, enqueues
numbers, and is itself ended: normally, by an exception, or by being closed. Each policy denies the multiples of a
number; some scopes let through the multiples of a number when a nested scope flushes.

The first half of this module is the specification. It has nothing in common with the way Airlock does it: here, intents
are moved from block to block.
"""

import itertools
from collections import Counter
from contextlib import suppress
from contextvars import copy_context
from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import airlock

# The specification


class Block:
    """A scope or a local policy: what it holds, and what is in force inside it."""

    has_ended = False

    def __init__(self, around, judges):
        #: The innermost block that was open around this one when it was opened.
        self.around = around
        #: The policies of local blocks that are in force inside.
        self.local_judges = (around.local_judges if around else set()) | judges


class LocalPolicy(Block):
    def __init__(self, around, judges):
        super().__init__(around, judges)
        self.scope = innermost_open(around, Scope)

    @property
    def is_open(self):
        """It ends with its block, and at the latest with the scope it was opened in."""
        return not self.has_ended and (self.scope is None or self.scope.is_open)


class Scope(Block):
    @property
    def is_open(self):
        return not self.has_ended

    def __init__(self, around, judges, lets_through):
        super().__init__(around, set())
        #: The open scope that encloses this one, and would capture its intents.
        self.parent = innermost_open(around, Scope)
        #: The policies of this and of enclosing scopes.
        self.judges = judges | (self.parent.judges if self.parent else set())
        self.lets_through = lets_through
        #: Pairs of a number, which tells the order of enqueueing, and the policies it answers to.
        self.intents = []
        #: What no one took.
        self.owed = []

    def flush(self, dispatch):
        passing, captured = self.intents, []
        for scope in enclosing(self):
            chosen = [intent for intent in passing if scope.lets_through and intent[0] % scope.lets_through == 0]
            kept = [intent for intent in passing if intent not in chosen]
            if kept and not scope.is_open:
                self.owed = self.intents
                return airlock.ScopeStateError
            captured.append((scope, kept))
            passing = chosen
        for scope, kept in captured:
            scope.intents = sorted(scope.intents + kept, key=lambda intent: intent[0])
        for number, judges in passing:
            if all(number % judge for judge in judges):
                dispatch(number, judges)
        return None


def innermost_open(block, kind=Block):
    while block and not (block.is_open and isinstance(block, kind)):
        block = block.around
    return block


def enclosing(scope):
    while scope := scope.parent:
        yield scope


# The real thing


class Denies(airlock.Policy):
    """Denies the multiples of a number, and counts how often it is asked about each."""

    def __init__(self, number):
        self.number = number
        self.observed = Counter()
        self.asked = Counter()

    def on_enqueue(self, intent):
        self.observed[intent.args[0]] += 1

    def allows(self, intent):
        self.asked[intent.args[0]] += 1
        return intent.args[0] % self.number != 0


class LetsThrough(airlock.Scope):
    def __init__(self, policy=None, *, executor=None, multiples_of):
        super().__init__(policy, executor=executor)
        self.multiples_of = multiples_of

    def before_descendant_flushes(self, exiting_scope, intents):
        return [intent for intent in intents if intent.args[0] % self.multiples_of == 0]


class SomeError(Exception):
    """Ends a block or a generator."""


def drive(coroutine):
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


class Strand:
    """Code that takes its steps when it is told to."""

    def __init__(self, here):
        #: The block of the model that was opened last, ended or not.
        self.here = here
        #: Pairs of a block of the model and the real one, without those that have ended.
        self.blocks = []


class PlainCode(Strand):
    def __init__(self):
        super().__init__(here=None)
        self.context = copy_context()

    def step(self, call):
        return self.context.run(call)


class Generator(Strand):
    def __init__(self, here, **scope_arguments):
        super().__init__(here)

        @airlock.scoped(**scope_arguments)
        def take_steps():
            call = yield airlock.get_current_scope()
            while call:
                call = yield call()

        self.generator = take_steps()
        self.scope = next(self.generator)

    def step(self, call):
        return self.generator.send(call)

    def finish(self, how):
        if how == "normally":
            with suppress(StopIteration):
                self.generator.send(None)
        elif how == "by an exception":
            with suppress(SomeError):
                self.generator.throw(SomeError())
        else:
            self.generator.close()


class AsyncGenerator(Strand):
    def __init__(self, here, **scope_arguments):
        super().__init__(here)

        @airlock.scoped(**scope_arguments)
        async def take_steps():
            call = yield airlock.get_current_scope()
            while call:
                call = yield call()

        self.generator = take_steps()
        self.scope = drive(anext(self.generator))

    def step(self, call):
        return drive(self.generator.asend(call))

    def finish(self, how):
        if how == "normally":
            with suppress(StopAsyncIteration):
                drive(self.generator.asend(None))
        elif how == "by an exception":
            with suppress(SomeError):
                drive(self.generator.athrow(SomeError()))
        else:
            drive(self.generator.aclose())


# Random programs

which = st.integers(min_value=0, max_value=9)
divisors = st.sampled_from([2, 3])
maybe_divisors = st.none() | divisors


class RandomPrograms(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.numbers = itertools.count(1)
        self.policies = {number: Denies(number) for number in (2, 3)}
        self.main = PlainCode()
        self.strands = [self.main]
        self.scopes = []
        self.dispatched = []
        self.expected = []

    def teardown(self):
        # Left to the cyclic collector, suspended generators would crash Python 3.11: there, it may run in the middle of
        # ContextVar.set, which does not expect the variable to be set by what the collector finalizes.
        for strand in self.strands[1:]:
            strand.finish("by being closed")

    def strand(self, number):
        return self.strands[number % len(self.strands)]

    def take_step(self, strand, consumer, call):
        """What `call` returns, or the class of the error it raises, in a step of `strand` that `consumer` asks for."""

        def step():
            try:
                return call()
            except airlock.AirlockError as error:
                return type(error)

        for one in [self.main] if strand is self.main else dict.fromkeys([strand, consumer, self.main]):
            step = partial(one.step, step)
        return step()

    def scope_arguments(self, denies, lets_through):
        arguments = {"policy": self.policies.get(denies), "executor": lambda it: self.dispatched.append(it.args[0])}
        if lets_through:
            arguments |= {"_cls": LetsThrough, "multiples_of": lets_through}
        return arguments

    def expect_dispatch(self, number, judges):
        self.expected.append(number)
        assert {policy.number for policy in self.policies.values() if policy.asked[number]} == judges

    def expect_end(self, scope, flushes):
        scope.has_ended = True
        return scope.flush(self.expect_dispatch) if flushes else None

    @rule(strand=which, consumer=which)
    def enqueue(self, strand, consumer):
        strand, consumer = self.strand(strand), self.strand(consumer)
        number = next(self.numbers)

        outcome = self.take_step(strand, consumer, partial(airlock.enqueue, abs, number))

        here = innermost_open(strand.here)
        scope = innermost_open(here, Scope)
        if scope is None:
            assert outcome is airlock.NoScopeError
            return
        judges = here.local_judges | scope.judges
        scope.intents.append((number, judges))
        assert {policy.number for policy in self.policies.values() if policy.observed[number]} == judges

    @rule(strand=which, consumer=which, denies=maybe_divisors, lets_through=maybe_divisors)
    def open_scope(self, strand, consumer, denies, lets_through):
        strand, consumer = self.strand(strand), self.strand(consumer)
        real = airlock.scope(**self.scope_arguments(denies, lets_through))
        strand.here = scope = Scope(innermost_open(strand.here), {denies} - {None}, lets_through)
        strand.blocks.append((scope, real))
        self.scopes.append((scope, real))

        assert self.take_step(strand, consumer, real.enter) is None

    @rule(strand=which, consumer=which, denies=divisors)
    def open_local_policy(self, strand, consumer, denies):
        strand, consumer = self.strand(strand), self.strand(consumer)
        real = airlock.policy(self.policies[denies])
        strand.here = LocalPolicy(innermost_open(strand.here), {denies})
        strand.blocks.append((strand.here, real))

        assert self.take_step(strand, consumer, real.__enter__) is None

    @rule(strand=which, consumer=which, block=which, error=st.sampled_from([None, None, SomeError]))
    def end_block(self, strand, consumer, block, error):
        strand, consumer = self.strand(strand), self.strand(consumer)
        if not strand.blocks:
            return
        block, real = strand.blocks.pop(-1 - block % len(strand.blocks))

        outcome = self.take_step(strand, consumer, partial(real.__exit__, error, error and error(), None))

        if isinstance(block, Scope):
            assert outcome is self.expect_end(block, flushes=error is None)
        else:
            block.has_ended = True

    @rule(
        creator=which,
        kind=st.sampled_from([Generator, AsyncGenerator]),
        denies=maybe_divisors,
        lets_through=maybe_divisors,
    )
    def start_generator(self, creator, kind, denies, lets_through):
        creator = self.strand(creator)
        scope = Scope(innermost_open(creator.here), {denies} - {None}, lets_through)

        start = partial(kind, scope, **self.scope_arguments(denies, lets_through))
        strand = self.take_step(creator, self.main, start)

        self.strands.append(strand)
        self.scopes.append((scope, strand.scope))

    @precondition(lambda self: len(self.strands) > 1)
    @rule(
        strand=which,
        consumer=which,
        how=st.sampled_from(["normally", "normally", "by an exception", "by being closed"]),
    )
    def finish_generator(self, strand, consumer, how):
        strand = self.strands.pop(1 + strand % (len(self.strands) - 1))
        consumer = self.strand(consumer)

        outcome = self.take_step(consumer, self.main, partial(strand.finish, how))

        (scope,) = (scope for scope, real in self.scopes if real is strand.scope)
        assert outcome is self.expect_end(scope, flushes=how == "normally")

    @invariant()
    def what_was_agreed_to_is_dispatched_in_order_and_nothing_else(self):
        assert self.dispatched == self.expected

    @invariant()
    def every_scope_holds_what_it_should(self):
        for scope, real in self.scopes:
            assert [intent.args[0] for intent in real.intents] == [number for number, _ in scope.intents]
            if not scope.is_open:
                assert [intent.args[0] for intent in real.undispatched_intents] == [number for number, _ in scope.owed]

    @invariant()
    def no_policy_is_troubled_twice(self):
        for policy in self.policies.values():
            assert all(count == 1 for count in (policy.observed | policy.asked).values())


TestRandomPrograms = RandomPrograms.TestCase
TestRandomPrograms.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
