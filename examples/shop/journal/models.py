from __future__ import annotations

from django.db import models


class Outcome(models.TextChoices):
    DISPATCHED = "dispatched"
    LEFT_TO_RELAY = "in the outbox"
    DISCARDED = "discarded"
    ROLLED_BACK = "rolled back"
    DROPPED = "dropped"
    FAILED = "failed"


#: The outcomes after which the worker has to run the task.
SENT = (Outcome.DISPATCHED, Outcome.LEFT_TO_RELAY)


class EndedScope(models.Model):
    """A scope that has ended: the one of a request, a command, or a run of a task."""

    #: What the demo calls this order. Empty for what a visitor does.
    label = models.CharField(max_length=200, blank=True)
    #: The request, command or run that the scope was around.
    around = models.CharField(max_length=200)
    #: What was filled in at the checkout.
    details = models.CharField(max_length=200, blank=True)
    #: The status of the response, for a request.
    status = models.PositiveIntegerField(null=True)
    #: The id of the task, for a run of a task.
    task_id = models.CharField(max_length=50, blank=True)
    #: Whether it was flushed, or else discarded.
    flushed = models.BooleanField()
    #: Why it was.
    why = models.CharField(max_length=200)
    at = models.DateTimeField(auto_now_add=True)

    def all_intents(self) -> list[RecordedIntent]:
        """The intents of this scope, each followed by those that its task enqueued."""
        found = []
        for intent in self.intents.order_by("pk"):
            found.append(intent)
            for run in EndedScope.objects.filter(task_id=intent.intent_id).order_by("pk"):
                found += run.all_intents()
        return found


class RecordedIntent(models.Model):
    """An intent, as it was when its scope ended."""

    scope = models.ForeignKey(EndedScope, on_delete=models.CASCADE, related_name="intents")
    intent_id = models.CharField(max_length=50)
    name = models.CharField(max_length=200)
    #: The call, such as `send_confirmation(1)`.
    text = models.CharField(max_length=200)
    #: The line that enqueued it.
    origin = models.CharField(max_length=200)
    #: Whether it was enqueued in a transaction.
    in_transaction = models.BooleanField()
    outcome = models.CharField(max_length=20, choices=Outcome.choices)
    why = models.CharField(max_length=200)

    @property
    def is_follow_up(self) -> bool:
        """Whether a task enqueued it."""
        return bool(self.scope.task_id)

    def runs(self) -> list[str]:
        """How each run of its task ended."""
        runs = TaskRun.objects.filter(task_id=self.intent_id).order_by("pk")  # the task has the intent's id
        return [run.state or "STARTED" for run in runs]

    def is_waiting(self) -> bool:
        """Whether the worker still has to run its task."""
        return self.outcome in SENT and not {"SUCCESS", "FAILURE"}.intersection(self.runs())


class TaskRun(models.Model):
    """A run of a task, recorded by the process that ran it."""

    task_id = models.CharField(max_length=50)
    #: The name of the Celery worker.
    worker = models.CharField(max_length=200)
    #: How it ended: `SUCCESS`, `RETRY` or `FAILURE`. Empty while it runs.
    state = models.CharField(max_length=20, blank=True)
