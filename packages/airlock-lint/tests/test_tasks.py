"""What is known as a task, and what is not."""

import pytest

IN_FUNCTION = """
    {imports}
    def view():
        {call}
"""


def found(project, imports, call):
    return bool(project.codes(IN_FUNCTION.format(imports=imports, call=call)))


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("from shop.tasks import notify", "notify.delay(1)"),
        ("from .tasks import notify as tell", "tell.delay(1)"),
        ("from shop import tasks", "tasks.notify.delay(1)"),
        ("import shop.tasks", "shop.tasks.notify.delay(1)"),
        ("import shop.tasks as them", "them.notify.delay(1)"),
        ("from shop.tasks import *", "notify.delay(1)"),
        ("", "from shop.tasks import notify; notify.delay(1)"),
        ("from shop import tasks; tell = tasks.notify", "tell.delay(1)"),
        ("from shop.tasks import notify", "signature = notify.s(1); signature.delay()"),
        ("from shop.tasks import notify", "notify.si(1).set(countdown=1).delay()"),
        ("from shop.tasks import notify, pack", "(notify.s(1) | pack.s()).delay()"),
        ("from shop.tasks import notify; from celery import chain", "chain(notify.s(1)).delay()"),
        ("from shop.tasks import notify; import celery", "celery.group([notify.s(1)]).apply_async()"),
        ("import celery", "celery.signature('shop.tasks.notify').delay()"),
        ("from shop.tasks import notify, pack", "(notify if 1 else pack).delay(1)"),
        ("from shop.tasks import notify, pack", "for task in (notify, pack): task.delay(1)"),
        ("from shop.tasks import notify, pack", "[task.delay(1) for task in (notify, pack)]"),
        ("from shop.tasks import notify", "[task := notify]; task.delay(1)"),
        ("from celery import current_app", "current_app.tasks['shop.tasks.notify'].delay(1)"),
        ("from installed.tasks import clean", "clean.delay()"),
    ],
)
def test_tasks_are_found_by_imports(project, imports, call):
    assert found(project, imports, call)


@pytest.mark.parametrize(
    "definition",
    [
        "from celery import shared_task\n@shared_task\ndef work(): ...",
        "from celery import shared_task\n@shared_task(name='w')\ndef work(): ...",
        "import celery\n@celery.shared_task\ndef work(): ...",
        "from celery import Celery\napp = Celery()\n@app.task\ndef work(): ...",
        "from celery import Celery\napp = Celery()\n@app.task(bind=True)\ndef work(self): ...",
        "from celery import Celery\napp = Celery()\nwork = app.task(print)",
        "from celery import Celery\napp = Celery()\nwork = app.task(name='w')(print)",
        "from celery import Task\nclass Work(Task): ...\nwork = Work()",
        "from celery import Task\nclass Own(Task): ...\nclass Work(Own): ...\nwork = Work()",
        "from celery import Celery\napp = Celery()\nclass Work(app.Task): ...\nwork = app.register_task(Work())",
        "from celery import shared_task\ndef ours(f): return shared_task(f)\n@ours\ndef work(): ...",
        "from celery import shared_task\ndef ours(**k): return shared_task(**k)\n@ours(name='w')\ndef work(): ...",
        "from site_config.celery import app\n@app.task\ndef work(): ...",
        "try:\n from celery import shared_task\n @shared_task\n def work(): ...\nexcept ImportError:\n work = None",
    ],
)
def test_tasks_are_found_by_definitions(project, definition):
    project.write("shop/work.py", definition)

    assert found(project, "from shop.work import work", "work.delay()")


def test_task_is_found_through_modules_that_import_it_again(project):
    project.write("shop/api.py", "from .jobs import notify")
    project.write("shop/jobs/__init__.py", "from .mail import notify")
    project.write("shop/jobs/mail.py", "from ..tasks import notify")

    assert found(project, "from shop.api import notify", "notify.delay(1)")


def test_task_is_found_in_directories_without_init(project):
    project.write("apps/mail/jobs.py", "from celery import shared_task\n@shared_task\ndef send(): ...")

    assert found(project, "from apps.mail.jobs import send", "send.delay()")
    assert found(project, "from mail.jobs import send", "send.delay()")


def test_tasks_are_found_in_classes(project):
    codes = project.codes("""
        from celery import Task, shared_task
        from shop.tasks import notify

        class Mailer:
            task = notify

            @staticmethod
            @shared_task
            def send(): ...

            def go(self):
                self.task.delay(1)
                Mailer.send.delay()

        class Work(Task):
            def run(self):
                self.apply_async()

        @shared_task(bind=True)
        def again(self):
            self.delay()
            self.app.send_task("shop.tasks.notify")
    """)

    assert codes == [(12, "AIR001"), (13, "AIR001"), (17, "AIR002"), (21, "AIR001"), (22, "AIR004")]


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("from shop.timers import timer", "timer.delay(5)"),
        ("from shop.timers import Timer", "Timer().delay(5)"),
        ("from threading import Timer as timer", "timer.delay(5)"),
        ("", "timer.delay(5)"),
        ("from shop.tasks import notify", "notify = object(); notify.delay(5)"),
        ("from shop.tasks import notify", "print(notify := object()); notify.delay(5)"),
        ("from shop.tasks import notify", "[notify.delay(5) for notify in timers]"),
        ("from shop.tasks import notify", "{x: notify.delay(5) for x, notify in timers}"),
        ("from shop.tasks import notify", "notify(5)"),
        ("from shop.tasks import notify", "notify.apply((5,))"),
        ("from shop.tasks import notify", "notify.other.delay(5)"),
        ("from shop.timers import mailer", "mailer.send_task('x')"),
        ("import shop.tasks", "shop.tasks.missing.delay(5)"),
    ],
)
def test_other_things_are_left_alone(project, imports, call):
    project.write("shop/timers.py", "class Timer: ...\ntimer = Timer()\nmailer = Timer()")

    assert not found(project, imports, call)


def test_parameter_hides_a_task_of_its_name(project):
    assert (
        project.codes("""
        from shop.tasks import notify

        def view(notify):
            notify.delay(1)
    """)
        == []
    )


@pytest.mark.parametrize("pattern", ["notify", "[1, *notify]", "{'x': 1, **notify}", "int() as notify"])
def test_case_hides_a_task_of_its_name(project, pattern):
    text = f"from shop.tasks import notify\ndef view(x):\n match x:\n  case {pattern}: notify.delay(1)\n"

    assert project.codes(text) == []


def test_names_that_refer_to_themselves_tell_nothing(project):
    project.write("shop/circle.py", "from shop.circle import a as b\nfrom shop.circle import b as a")

    assert not found(project, "from shop.circle import a", "a = a.set(); a.delay()")


def test_strict_reports_what_may_be_a_task(project):
    text = "def view(timer, app):\n    timer.delay(5)\n    app.send_task('x')\n"

    assert project.codes(text) == []
    assert project.codes(text, "--strict") == [(2, "AIR009"), (3, "AIR009")]
