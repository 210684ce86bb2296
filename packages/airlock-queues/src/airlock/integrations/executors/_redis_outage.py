"""What a Redis says that takes nothing from anybody, for the queues that are kept in one."""

from __future__ import annotations

from contextlib import suppress

#: It cannot be reached, or does not answer.
_IS_AWAY: tuple[type[Exception], ...] = ()
_REDIS_ERROR: tuple[type[Exception], ...] = ()
with suppress(ModuleNotFoundError):
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.exceptions import RedisError
    from redis.exceptions import TimeoutError as RedisTimeoutError

    _IS_AWAY = (RedisConnectionError, RedisTimeoutError)
    _REDIS_ERROR = (RedisError,)

#: How it refuses whatever it is given: its memory or its disk is full, or it is a replica, as after a failover.
_REFUSALS = (
    "command not allowed when used memory > 'maxmemory'",
    "MISCONF ",
    "write against a read only replica",
    "NOREPLICAS ",
    "CLUSTERDOWN ",
)


def is_redis_outage(error: BaseException | None) -> bool:
    """Whether an error is that of a Redis that takes nothing from anybody."""
    refuses_all = isinstance(error, _REDIS_ERROR) and any(refusal in str(error) for refusal in _REFUSALS)
    return refuses_all or isinstance(error, _IS_AWAY)
