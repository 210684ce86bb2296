import airlock
from django.db import transaction
from django.test import TestCase


class InsideATestCase(TestCase):
    def setUp(self):
        self.done: list[str] = []

    def test_on_commit_callbacks_do_not_run(self):
        with transaction.atomic():
            transaction.on_commit(lambda: self.done.append("confirmation"))

        assert self.done == []

    def test_they_run_when_they_are_captured(self):
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            transaction.on_commit(lambda: self.done.append("confirmation"))

        assert self.done == ["confirmation"]

    def test_captured_callback_may_enqueue(self):
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            transaction.on_commit(
                lambda: airlock.enqueue(self.done.append, "confirmation")
            )

        assert self.done == ["confirmation"]

    def test_intents_are_dispatched_as_in_production(self):
        with airlock.scope(), transaction.atomic():
            airlock.enqueue(self.done.append, "confirmation")

        assert self.done == ["confirmation"]
