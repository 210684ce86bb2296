from django.apps import AppConfig


class JournalConfig(AppConfig):
    name = "journal"

    def ready(self) -> None:
        from celery.signals import task_postrun, task_prerun

        from journal import runs

        task_prerun.connect(runs.begin)
        task_postrun.connect(runs.end)
