"""Intents as jobs of RQ."""

from __future__ import annotations

import contextvars
import importlib
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.backoff
import redis.retry
from rq import Queue, Retry
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException

import airlock
from airlock.integrations.executors.rq import AirlockJob, RQExecutor
from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@pytest.fixture
def jobs(client: redis.Redis) -> ModuleType:
    return importlib.import_module("rq_jobs")


@pytest.fixture
def run_all(work: Callable[..., None], address: str) -> Callable[[], None]:
    """A function that starts a worker."""
    job_class = "airlock.integrations.executors.rq.AirlockJob"
    command = ["-m", "rq.cli", "worker", "default", "low", "--job-class", job_class, "--url", address]
    return lambda: work(*command, ready="Listening on")


def test_intent_becomes_a_job_with_its_id(jobs: ModuleType, run_all: Callable[[], None], told: Any) -> None:
    run_all()

    with airlock.scope(executor=jobs.executor):
        intent = airlock.enqueue(jobs.notify, "hello")
        airlock.enqueue(jobs.last)
        assert not Job.exists(intent.id, jobs.client)

    assert told() == [["notify", intent.id, "hello"]]


def test_only_the_attempt_that_succeeds_has_effects(jobs: ModuleType, run_all: Callable[[], None], told: Any) -> None:
    run_all()

    with airlock.scope(executor=jobs.executor):
        airlock.enqueue(jobs.order, 1, attempts=9)  # and no other attempt
        airlock.enqueue(jobs.order, 2, attempts=3, _dispatch_options={"retry": Retry(max=2)})

    assert [text for _, _, text in told()] == ["order 2, attempt 3"]


def test_run_that_returns_a_retry_has_no_effects(jobs: ModuleType, run_all: Callable[[], None], told: Any) -> None:
    run_all()

    with airlock.scope(executor=jobs.executor):
        airlock.enqueue(jobs.order_that_returns_retry, 1, attempts=3)

    assert [text for _, _, text in told()] == ["order 1, attempt 3"]


def test_follow_ups_go_through_the_configured_executor(jobs: ModuleType) -> None:
    followed: list[airlock.Intent] = []
    airlock.configure(executor=followed.append)

    AirlockJob.create(jobs.order, (1, 1), connection=jobs.client).perform()

    assert [intent.name for intent in followed] == ["notify", "last"]


def test_module_of_the_first_job_may_configure_the_executor(
    jobs: ModuleType, run_all: Callable[[], None], told: Any
) -> None:
    run_all()

    with airlock.scope(executor=jobs.executor):
        airlock.enqueue("rq_configured.order")

    assert [text for _, _, text in told()] == ["hello"]


def test_follow_ups_are_serialised_as_the_job_was(jobs: ModuleType) -> None:
    job = AirlockJob.create(
        jobs.order, (1, 1), connection=jobs.client, origin="json", serializer=JSONSerializer, status=JobStatus.STARTED
    )

    job.perform()

    queue = Queue("json", connection=jobs.client, serializer=JSONSerializer)
    assert [job.args for job in queue.jobs] == [["order 1, attempt 1"], []]


def test_discarded_intents_reach_no_queue(jobs: ModuleType) -> None:
    with pytest.raises(ValueError, match="declined"), airlock.scope(executor=jobs.executor):
        airlock.enqueue(jobs.notify, "hello")
        raise ValueError("declined")

    assert jobs.client.dbsize() == 0


def test_options_are_those_of_rq(jobs: ModuleType) -> None:
    with airlock.scope(executor=jobs.executor):
        airlock.enqueue(jobs.notify, "later")
        options = {"job_id": "mine", "job_timeout": 7, "description": "greets", "at_front": True}
        airlock.enqueue(jobs.notify, "first", _dispatch_options=options)

    first, later = jobs.default.jobs
    assert (first.id, first.timeout, first.description) == ("mine", 7, "greets")
    assert later.args == ("later",)


def test_option_names_the_queue(jobs: ModuleType) -> None:
    with airlock.scope(executor=jobs.executor):
        for number, queue in enumerate(["default", "low", "low", "default"]):
            airlock.enqueue(jobs.notify, number, _dispatch_options={"queue": queue})

    assert [job.args for job in jobs.default.jobs] == [(0,), (3,)]
    assert [job.args for job in jobs.low.jobs] == [(1,), (2,)]


def test_dotted_path_becomes_a_job(jobs: ModuleType) -> None:
    with airlock.scope(executor=jobs.executor):
        airlock.enqueue("elsewhere.notify", 1)

    assert [job.func_name for job in jobs.default.jobs] == ["elsewhere.notify"]


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((), {}, TypeError, "missing a required argument: 'text'"),
        (("hello",), {"job_tiemout": 7}, TypeError, "job_tiemout"),
        (("hello",), {"queue": "high"}, ValueError, "There is no queue 'high': the executor has default, low."),
        ((lambda: None,), {}, Exception, "pickle"),
    ],
    ids=["arguments", "option", "queue", "not to be pickled"],
)
def test_what_no_worker_could_run_raises_at_the_call(
    jobs: ModuleType, args: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with airlock.scope(executor=jobs.executor), pytest.raises(error, match=message):
        airlock.enqueue(jobs.notify, *args, _dispatch_options=options)

    assert jobs.client.dbsize() == 0


def undecorated() -> None: ...


def decorated_without_wraps(function: Callable[[], None]) -> Callable[[], None]:
    def wrapper() -> None:
        function()

    return wrapper


def of_the_script() -> None: ...


of_the_script.__module__ = "__main__"  # as in the file that Python was started with


@pytest.mark.parametrize(
    "function",
    [lambda: None, decorated_without_wraps(undecorated), of_the_script],
    ids=["lambda", "local", "of the script"],
)
def test_function_that_no_worker_could_import_raises_at_the_call(
    jobs: ModuleType, function: Callable[[], None]
) -> None:
    with airlock.scope(executor=jobs.executor), pytest.raises(TypeError, match="at the top level of a module"):
        airlock.enqueue(function)

    assert jobs.client.dbsize() == 0


@pytest.mark.parametrize(("count", "transactions"), [(5, 1), (1500, 2)])
def test_at_most_a_thousand_jobs_go_in_one_transaction(jobs: ModuleType, count: int, transactions: int) -> None:
    jobs.default.get_redis_server_version()  # asked for once, and by RQ itself

    with jobs.client.monitor() as monitor:
        with airlock.scope(executor=jobs.executor):
            for number in range(count):
                airlock.enqueue(jobs.notify, number)
        jobs.client.echo("flushed")
        commands = []
        while "ECHO" not in (command := monitor.next_command()["command"]):
            commands.append(command)

    assert [command for command in commands if command == "EXEC"] == ["EXEC"] * transactions
    assert [job.args for job in jobs.default.jobs] == [(number,) for number in range(count)]


def test_dependent_job_waits_for_the_one_before_it(jobs: ModuleType, run_all: Callable[[], None], told: Any) -> None:
    with airlock.scope(executor=jobs.executor):
        first = airlock.enqueue(jobs.notify, "first")
        second = airlock.enqueue(jobs.notify, "second", _dispatch_options={"depends_on": first.id})
        airlock.enqueue(jobs.last, _dispatch_options={"depends_on": second.id})

    run_all()
    assert [text for _, _, text in told()] == ["first", "second"]


tenant = contextvars.ContextVar("tenant", default="nobody")


class TenantQueue(Queue):
    """As others have it, such as Sentry for its traces."""

    def enqueue_call(self, *args: Any, **kwargs: Any) -> Job:
        return super().enqueue_call(*args, **kwargs, meta={"tenant": tenant.get()})


def test_each_job_is_made_in_the_context_of_its_call(jobs: ModuleType) -> None:
    queue = TenantQueue(connection=jobs.client)
    with airlock.scope(executor=RQExecutor(queue)):
        for name in ["ada", "bob"]:
            tenant.set(name)
            airlock.enqueue(jobs.notify, "hello")
        tenant.set("somebody else")

    assert [job.meta["tenant"] for job in queue.jobs] == ["ada", "bob"]


def test_nothing_is_dispatched_when_redis_is_away(jobs: ModuleType) -> None:
    away = Queue(connection=redis.Redis(port=free_port(), retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0)))
    with pytest.raises(redis.ConnectionError), airlock.scope(executor=RQExecutor(away)) as scope:
        intents = [airlock.enqueue(jobs.notify, number) for number in range(3)]

    assert scope.undispatched_intents == intents
    assert scope.unknown_intents == []


def test_nobody_can_tell_what_became_of_a_transaction_that_failed(jobs: ModuleType) -> None:
    jobs.client.set(jobs.default.key, "not a list")

    with pytest.raises(redis.ResponseError), airlock.scope(executor=jobs.executor) as scope:
        intents = [airlock.enqueue(jobs.notify, number) for number in range(3)]

    assert scope.unknown_intents == intents


class LoggingScope(airlock.Scope):
    dispatch_errors = "log"


def test_time_limit_of_a_job_interrupts_a_flush() -> None:
    def interrupted(intent: airlock.Intent) -> None:
        raise JobTimeoutException

    with pytest.raises(JobTimeoutException), airlock.scope(_cls=LoggingScope, executor=interrupted) as scope:
        intents = [airlock.enqueue(print, number) for number in range(2)]

    assert scope.unknown_intents == intents[:1]


def test_policies_know_a_job_by_its_import_path(jobs: ModuleType) -> None:
    with airlock.scope(airlock.BlockTasks({"rq_jobs.notify"}), executor=jobs.executor):
        airlock.enqueue(jobs.notify, "hello")
        airlock.enqueue(jobs.last)

    assert [job.func_name for job in jobs.default.jobs] == ["rq_jobs.last"]


def test_redis_that_is_away_is_down(jobs: ModuleType) -> None:
    away = Queue(connection=redis.Redis(port=free_port(), retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0)))
    why = RQExecutor(away).why_down(airlock.Intent(jobs.notify), None)

    assert why is not None
    assert "refused" in why


@pytest.mark.usefixtures("full_redis")
def test_redis_that_is_full_is_down(jobs: ModuleType) -> None:
    intent = airlock.Intent(jobs.notify, ("hello",))
    with pytest.raises(redis.RedisError, match="maxmemory") as raised:
        jobs.executor(intent)

    assert "maxmemory" in (jobs.executor.why_down(intent, raised.value) or "")


def test_redis_that_is_there_is_not_to_blame(jobs: ModuleType) -> None:
    assert jobs.executor.why_down(airlock.Intent(jobs.notify), redis.ConnectionError("Broken pipe")) is None


def test_only_what_is_not_asynchronous_runs_in_place(jobs: ModuleType) -> None:
    executor = RQExecutor(jobs.default, Queue("now", connection=jobs.client, is_async=False))

    assert not executor.runs_in_place(airlock.Intent(jobs.notify))
    assert executor.runs_in_place(airlock.Intent(jobs.notify, dispatch_options={"queue": "now"}))
