"""Jobs of RQ in a module that configures their executor, which the worker imports for the first job."""

from rq_jobs import executor, last, notify

import airlock

airlock.configure(executor=executor)


def order():
    airlock.enqueue(notify, "hello", _dispatch_options={"queue": "low"})
    airlock.enqueue(last, _dispatch_options={"queue": "low"})
