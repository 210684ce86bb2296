"""Airlock for Kiosk."""

import functools
import json
from dataclasses import dataclass

import airlock
from airlock.ext import (
    register_fates,
    run_in_context,
    set_defaults,
    suspend,
    when_no_scope,
)

import kiosk


@dataclass(frozen=True)
class UnitFate:
    """What becomes of one unit of work."""

    unit: kiosk.UnitOfWork

    @property
    def state(self):
        return {"open": "open", "saved": "kept", "abandoned": "gone"}[self.unit.state]

    @property
    def transaction(self):
        return self  # units have no savepoints

    def when_over(self, tell):
        if self.state == "open":
            self.unit.callbacks.append(tell)
        else:
            tell()


class UnitSource:
    def open_fates(self):
        unit = kiosk.current_unit()
        return (UnitFate(unit),) if unit else ()

    def refresh(self, fates):
        pass  # a UnitFate always knows its state


class GatewayExecutor:
    """Sends intents to the gateway of Kiosk. Tasks are names."""

    def accepts(self, task):
        return isinstance(task, str)

    def check(self, intent):
        json.dumps(intent.args)  # raises a TypeError at the `enqueue` call

    def __call__(self, intent):
        kiosk.post([self._message(intent)])

    def dispatch_many(self, intents):
        some = intents[:3]
        messages = [run_in_context(intent, self._message, intent) for intent in some]
        try:
            kiosk.post(messages)
        except TimeoutError as error:
            return [airlock.OutcomeUnknown(error)] * len(some)
        except ConnectionError as error:
            return [error]
        return [None] * len(some)

    def _message(self, intent):
        return intent.full_name, intent.args, kiosk.request_id.get()


def boundary(view):
    """Make each response of a view, and the stream of its chunks, a scope."""

    @functools.wraps(view)
    def respond(*args):
        scope = airlock.scope()
        scope.enter()
        try:
            body = iter(view(*args))
        except BaseException:
            scope.exit()
            scope.discard()
            raise
        return _chunks(scope, suspend(scope), body)

    return respond


def _chunks(scope, inside, body):
    try:
        while True:
            with inside:
                chunk = next(body, None)
            if chunk is None:
                break
            yield chunk
    except BaseException:  # also when nobody wants the other chunks
        with inside:
            scope.exit()
        scope.discard()
        raise
    with inside:
        scope.exit()
    scope.flush()


def explain(name):
    raise airlock.NoScopeError(
        f"{name} was enqueued outside of a response. Decorate the view with @boundary."
    )


register_fates(UnitSource())
set_defaults(lambda: {"executor": GatewayExecutor()})
when_no_scope(explain)
