from __future__ import annotations

from django.db import models


class EndedScope(models.Model):
    """A scope that was flushed or discarded."""

    #: The request, the task or the command that it was around.
    around = models.CharField(max_length=200)
    #: The status of the response, if it was around a request.
    status = models.PositiveIntegerField(null=True)
    #: The id of the task, if it was around the run of one.
    task_id = models.CharField(max_length=50, blank=True)
    at = models.DateTimeField(auto_now_add=True)


class SeenIntent(models.Model):
    """An intent that was in a scope when it ended."""

    scope = models.ForeignKey(EndedScope, on_delete=models.CASCADE, related_name="intents")
    intent_id = models.CharField(max_length=50)
    name = models.CharField(max_length=200)
    text = models.CharField(max_length=200)
    #: The line of code that enqueued it.
    origin = models.CharField(max_length=200)
    #: What became of it, and why.
    outcome = models.CharField(max_length=200)

    def runs(self) -> models.QuerySet[TaskRun]:
        """The runs of its task, which has the intent's id."""
        return TaskRun.objects.filter(task_id=self.intent_id).order_by("pk")

    def follow_ups(self) -> models.QuerySet[SeenIntent]:
        """What those runs enqueued themselves."""
        return SeenIntent.objects.filter(scope__task_id=self.intent_id).order_by("pk")


class TaskRun(models.Model):
    """A run of a task, written down by the process that ran it."""

    task_id = models.CharField(max_length=50)
    text = models.CharField(max_length=200)
    #: The name of the Celery worker.
    worker = models.CharField(max_length=200)
    #: How it ended: `SUCCESS`, `RETRY` or `FAILURE`; empty as long as it has not.
    state = models.CharField(max_length=20, blank=True)
