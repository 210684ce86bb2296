import airlock
from django.db import transaction
from django.test import TestCase


class InsideATestCase(TestCase):
    def test_on_commit_callbacks_do_not_run(self):
        done = []
        with transaction.atomic():
            transaction.on_commit(lambda: done.append("confirmation"))

        assert done == []

    def test_they_run_when_they_are_captured(self):
        done = []
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            transaction.on_commit(lambda: done.append("confirmation"))

        assert done == ["confirmation"]

    def test_intents_are_dispatched_as_in_production(self):
        done = []
        with airlock.scope(), transaction.atomic():
            airlock.enqueue(done.append, "confirmation")

        assert done == ["confirmation"]
