"""What can go wrong, and what to do about it."""


class AirlockError(Exception):
    """The base of every error that Airlock raises."""


class UsageError(AirlockError):
    """Airlock was called where, or in a way, it must not be."""


class NoScopeError(UsageError):
    """An effect was enqueued outside of any scope, so nothing decides whether it happens.

    Put `with airlock.scope():` around the code that decides: the request, the task, the command. The integrations do it
    for you: `AirlockMiddleware`, `AirlockTask`, `airlock_command`.
    """


class PolicyEnqueueError(UsageError):
    """A policy tried to enqueue, or to enter a scope. Policies judge intents, and may log or raise."""


class ScopeStateError(AirlockError):
    """A scope was used before it was entered, after it was left, or twice.

    Often a thread or an asyncio task outlives the scope it started in. Wait for it inside the scope, or give it a scope
    of its own.
    """


class PolicyViolation(AirlockError):  # noqa: N818 - a public name
    """A policy forbids this intent. Raised by the `enqueue` call."""


class DispatchError(AirlockError):
    """An executor cannot carry out an intent of this kind."""
