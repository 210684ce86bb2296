"""What a request, a test case and an async flush promise in the cases that are easily forgotten."""

import asyncio
import subprocess
import sys
import time

import pytest
from django.http import HttpResponse

import airlock
from airlock.integrations.django import DjangoScope


class NeverFlushes(DjangoScope):
    def should_flush(self, error):
        return False


def test_a_scope_class_may_refuse_a_request_that_succeeded(get, as_view, settings, ran):
    settings.AIRLOCK = {"SCOPE": NeverFlushes}

    def view(request):
        airlock.enqueue(ran.append, 1)
        return HttpResponse()

    response = get(as_view(view))
    assert response.status_code == 200
    assert response.airlock_scope.is_discarded
    assert ran == []


async def test_a_flush_that_failed_before_its_task_was_cancelled_is_logged(log):
    class Fails(airlock.AllowAll):
        def allows(self, intent):
            raise LookupError("no idea")

    async def flush():
        async with airlock.scope(Fails(), _cls=DjangoScope):
            airlock.enqueue(abs, 1)

    task = asyncio.create_task(flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(0.2)  # the thread fails meanwhile, and the loop cannot hear of it
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (record,) = [record for record in log.records if record.levelname == "ERROR"]
    assert record.exc_info[0] is LookupError


BROKEN = """
import sys
from django.conf import settings

class Breaks:
    def find_spec(self, name, path=None, target=None):
        if name == "airlock.integrations.executors.celery":
            raise ModuleNotFoundError("No module named 'kombu'", name="kombu")

sys.meta_path.insert(0, Breaks())
settings.configure()
import airlock, airlock.integrations.django
airlock.scope()
"""


def test_a_broken_airlock_celery_is_no_reason_to_run_tasks_in_the_request():
    ended = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "No module named 'kombu'" in ended.stderr
