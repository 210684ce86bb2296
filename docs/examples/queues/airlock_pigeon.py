"""Airlock for Pigeon."""

import functools
import inspect

import airlock
from airlock import OutcomeUnknown
from airlock.ext import run_in_context

from pigeon import Job, Loft


class PigeonExecutor:
    """Puts the intent's function into a loft. Dispatch options are those of `Job`."""

    def __init__(self, loft: Loft) -> None:
        self._loft = loft

    def check(self, intent):
        inspect.signature(intent.task).bind(*intent.args, **intent.kwargs)
        self._job_of(intent)  # raises if Pigeon does not know an option

    def __call__(self, intent):
        self._loft.put([self._job_of(intent)])

    def dispatch_many(self, intents):
        jobs = [run_in_context(intent, self._job_of, intent) for intent in intents]
        try:
            self._loft.put(jobs)
        except ConnectionError as error:
            return [OutcomeUnknown(error)] * len(jobs)
        return [None] * len(jobs)

    def why_down(self, intent, error):
        try:
            self._loft.put([])
        except ConnectionError as away:
            return str(away)
        return None

    def _job_of(self, intent):
        options = {"id": intent.id, **intent.dispatch_options}
        kwargs = dict(intent.kwargs)
        return Job(function=intent.task, args=intent.args, kwargs=kwargs, **options)


loft = Loft()
pigeon_executor = PigeonExecutor(loft)


def airlock_job(function):
    """Run a job in a scope, whose effects go out if the run succeeds."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        is_configured = airlock.get_configuration().executor is not None
        with airlock.scope(executor=None if is_configured else pigeon_executor):
            return function(*args, **kwargs)

    return run
