"""What is stored of an intent, so that any process can dispatch it.

A payload is signed JSON: the id of the intent, the executor, and either a *message*, which is what Celery would have
published there and then, or a *call*, which is made when it is dispatched.
"""

from __future__ import annotations

import sys
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from celery import Task, current_app
from celery.canvas import Signature
from django.conf import settings
from django.core.signing import BadSignature, Signer, b64_encode
from django.utils.crypto import salted_hmac
from django.utils.encoding import force_bytes
from django.utils.module_loading import import_string
from kombu.utils import json

from airlock import Intent, UsageError, get_configuration
from airlock.integrations.executors.celery import CeleryExecutor, Message, celery_executor

if TYPE_CHECKING:
    from hmac import HMAC

    from airlock import Executor

_SALT = "airlock.outbox"
_signers: dict[tuple[Any, ...], Signer] = {}


class _Signer(Signer):
    """Signs as Django's does, which derives the key from the secret each time."""

    def signature(self, value: str | bytes, key: str | bytes | None = None) -> str:
        signing = _keyed(key or self.key).copy()
        signing.update(force_bytes(value))
        return b64_encode(signing.digest()).decode()


@lru_cache(maxsize=16)  # the secret, and its fallbacks
def _keyed(secret: str | bytes) -> HMAC:
    return salted_hmac(f"{_SALT}signer", "", secret, algorithm="sha256")


class UnreadablePayloadError(Exception):
    """A payload that cannot be dispatched, whoever tries."""


def _signer() -> Signer:
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    if keys not in _signers:
        _signers.clear()
        _signers[keys] = _Signer(key=keys[0], fallback_keys=list(keys[1:]), salt=_SALT)
    return _signers[keys]


def message_of(intent: Intent, executor: Executor) -> Message | None:
    """What Celery would have published for an intent, if that is all that is to be done."""
    return executor.record(intent) if isinstance(executor, CeleryExecutor) else None


def payload_of(intent: Intent, executor: Executor, executor_name: str | None, message: Message | None) -> str:
    """Make the payload of an intent.

    Raises:
        UsageError: if the task or its arguments cannot be written down.
    """
    begin = f'{{"id": "{intent.id}", "executor": {_text_of(executor_name)}, '
    if message is not None:
        return _signer().sign(f'{begin}"message": {message.to_json()}}}')
    call = {
        "task": _name_of_task(intent),
        "args": list(intent.args),
        "kwargs": dict(intent.kwargs),
        "options": {**_parent_options(intent, executor), **intent.dispatch_options},
        "name": intent.name,
    }
    try:
        return _signer().sign(f'{begin}"call": {json.dumps(call)}}}')
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{intent.full_name} cannot be recorded, as its arguments or options are not JSON: {error}. "
            "Give it ids instead of objects."
        ) from error


def _parent_options(intent: Intent, executor: Executor) -> dict[str, Any]:
    # The call will be made in another thread, or process. There no task runs.
    return executor.parent_options(intent) if isinstance(executor, CeleryExecutor) else {}


@cache
def _text_of(executor_name: str | None) -> str:
    return json.dumps(executor_name)


def unsigned(payload: str) -> str:
    """What was signed.

    Raises:
        UnreadablePayloadError: if it was not written by this project.
    """
    try:
        return _signer().unsign(payload)
    except BadSignature:
        raise UnreadablePayloadError(
            "Its signature is wrong: it was changed, or written with a SECRET_KEY that is not in SECRET_KEY_FALLBACKS."
        ) from None


def read(payload: str, entry_id: str) -> tuple[Intent, Executor]:
    """The intent that a payload was made of, and the executor to dispatch it with.

    The intent is another one than that which was enqueued. If it is a call, it has the same id.

    Raises:
        UnreadablePayloadError: if it was not written by this project.
        ImportError, AttributeError: if it names what is not there.
    """
    stored = json.loads(unsigned(payload))
    if stored["id"] != entry_id:
        raise UnreadablePayloadError(f"It is that of another entry, {stored['id']}.")
    executor = _executor_named(stored["executor"])
    if "message" in stored:
        app = executor.app if isinstance(executor, CeleryExecutor) else None
        message = Message.from_dict(stored["message"], app)
        return Intent(message, dispatch_options={"task_id": message.task_id}), executor
    call = stored["call"]
    # With the id of the intent that was enqueued, which is that of the task, also when it is dispatched again.
    intent = Intent(
        _task_named(call["task"]),
        call["args"],
        call["kwargs"],
        name=call["name"],
        dispatch_options=call["options"],
        id=entry_id,
    )
    return intent, executor


# -- Tasks -------------------------------------------------------------------------------------------------------------


def _name_of_task(intent: Intent) -> dict[str, Any]:
    task = intent.task
    if isinstance(task, str):
        return {"name": task}
    if isinstance(task, Task):
        return {"name": task.name}
    if isinstance(task, Signature):
        return {"signature": task}
    path = intent.full_name  # the tasks of other queues are where the functions are that they are made of
    if not _leads_to(path, task):
        raise UsageError(
            f"{task!r} cannot be recorded: another process has to find it by its name, and {path!r} does not lead to "
            "it. Enqueue a function of a module, or a Celery task, and give what it needs as arguments."
        )
    return {"path": path}


def _task_named(named: dict[str, Any]) -> Any:
    if "signature" in named:
        return current_app.signature(named["signature"])
    if "path" in named:
        return _imported(named["path"])
    return current_app.tasks.get(named["name"], named["name"])


# -- Executors ---------------------------------------------------------------------------------------------------------


def name_of_executor(executor: Executor) -> str | None:
    """Where the executor can be imported from. `None` stands for the configured one.

    Raises:
        UsageError: if no other process could find it.
    """
    if executor is get_configuration().executor:
        return None
    if executor is celery_executor:
        return "airlock.integrations.executors.celery.celery_executor"
    module = sys.modules.get(getattr(executor, "__module__", ""))
    names = [getattr(executor, "__qualname__", None), *(vars(module) if module else ())]
    for name in names:
        path = f"{getattr(executor, '__module__', None)}.{name}"
        if _leads_to(path, executor):
            return path
    raise UsageError(
        f"The executor {executor!r} cannot be recorded: another process has to find it by its name. Make it an "
        "attribute of the module of its class, or configure it as AIRLOCK['EXECUTOR']."
    )


def _executor_named(path: str | None) -> Executor:
    if path is not None:
        executor: Executor = _imported(path)
        return executor
    return get_configuration().executor or celery_executor


# -- Dotted paths ------------------------------------------------------------------------------------------------------


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return import_string(path)
    except ImportError:
        return getattr(import_string(module), name)  # an attribute of a class


def _leads_to(path: str, wanted: object) -> bool:
    try:
        found = _imported(path)
    except (ImportError, AttributeError):
        return False
    return found is wanted or found == wanted  # a method of a class is made anew each time it is asked for
