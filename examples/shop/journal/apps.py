from django.apps import AppConfig


class JournalConfig(AppConfig):
    name = "journal"

    def ready(self) -> None:
        from airlock.ext import subscribe
        from celery.signals import task_postrun, task_prerun

        from journal import runs, watch

        subscribe(watch.listen)
        task_prerun.connect(watch.begin_run)
        task_prerun.connect(runs.begin)
        # In this order: when a run has ended, what it has enqueued is recorded.
        task_postrun.connect(watch.end_run)
        task_postrun.connect(runs.end)
