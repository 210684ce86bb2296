"""What can go wrong, and what to do about it."""


class AirlockError(Exception):
    """Anything Airlock itself complains about; catch this to catch them all."""


class UsageError(AirlockError):
    """Airlock was called where, or in a way, it cannot be."""


class NoScopeError(UsageError):
    """If you're hitting this, code enqueued an effect where no boundary is in force.

    Put `with airlock.scope():` around the code that decides whether the effect happens: the request, the task, the
    command. Integrations do it for you (`AirlockMiddleware`, `AirlockTask`, `airlock_command`).
    """


class PolicyEnqueueError(UsageError):
    """If you're hitting this, a policy tried to cause an effect of its own.

    Policies judge intents and may log or raise. Move the effect to the code that enqueued the judged intent.
    """


class ScopeStateError(AirlockError):
    """If you're hitting this, a scope was used before it was entered, after it was left, or twice.

    The usual cause is a thread or an asyncio task that outlives the scope it started in: wait for it inside the scope,
    or give it a scope of its own.
    """


class PolicyViolation(AirlockError):  # noqa: N818 - a public name
    """Raised by a policy that forbids an intent outright, at the `enqueue` call that made it."""


class DispatchError(AirlockError):
    """An executor cannot carry out an intent of this kind; nothing was tried."""
