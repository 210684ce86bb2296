"""Take the jobs that wait in a queue, and print their ids as an intent has them."""

import sys
from uuid import UUID

import django

django.setup()


def rq():
    from rq_jobs import default

    yield from default.job_ids
    default.empty()


def huey():
    from huey_jobs import huey

    while (task := huey.dequeue()) is not None:
        yield task.id


def dramatiq():
    from dramatiq_jobs import broker

    for message in broker.consume("default", timeout=100):
        if message is None:
            break
        yield message.message_id


def django_q():
    from django_q.brokers import get_broker
    from django_q.signing import SignedPackage

    while waiting := get_broker().dequeue():
        for _, package in waiting:
            yield SignedPackage.loads(package)["id"]


take = {"rq": rq, "huey": huey, "dramatiq": dramatiq, "django_q": django_q}[sys.argv[1]]
sys.stdout.write(" ".join(str(UUID(each)) for each in take()))
