"""`airlock-lint fix`: what it writes, and what it leaves."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from textwrap import dedent

import pytest


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("notify.delay()", "airlock.enqueue(notify)"),
        ("notify.delay(1, urgent=True)", "airlock.enqueue(notify, 1, urgent=True)"),
        ("notify.delay(*a, **b)", "airlock.enqueue(notify, *a, **b)"),
        ("notify.delay(x for x in a)", "airlock.enqueue(notify, (x for x in a))"),
        ("notify.delay(1)  # noqa: E501", "airlock.enqueue(notify, 1)  # noqa: E501"),
        ("notify.delay(1)  # why", "airlock.enqueue(notify, 1)  # why"),
        ("notify.delay_on_commit(1)", "airlock.enqueue(notify, 1)"),
        ("notify.s(1).delay(2)", "airlock.enqueue(notify.s(1), 2)"),
        ("(notify.s(1) | pack.s()).delay()", "airlock.enqueue(notify.s(1) | pack.s())"),
        ("notify.apply_async()", "airlock.enqueue(notify)"),
        ("notify.apply_async((1,))", "airlock.enqueue(notify, 1)"),
        ("notify.apply_async([1, *a], {'urgent': True})", "airlock.enqueue(notify, 1, *a, urgent=True)"),
        ("notify.apply_async(args=(1,), kwargs=dict(b=2, **c))", "airlock.enqueue(notify, 1, b=2, **c)"),
        ("notify.apply_async(None, {**c, 'b': 2})", "airlock.enqueue(notify, **{**c, 'b': 2})"),
        ("notify.apply_async(kwargs={**c})", "airlock.enqueue(notify, **c)"),
        ("group(notify.s(1), pack.s())()", "airlock.enqueue(group(notify.s(1), pack.s()))"),
        ("(notify.s(1) | pack.s())()", "airlock.enqueue(notify.s(1) | pack.s())"),
        ("chord([notify.s(1)])(pack.s())", "airlock.enqueue(chord([notify.s(1)], pack.s()))"),
        (
            "chord(notify.s(each) for each in numbers)(pack.s())",
            "airlock.enqueue(chord((notify.s(each) for each in numbers), pack.s()))",
        ),
        (
            'notify.apply_async((1,), countdown=60, link=pack.s("x"))',
            'airlock.enqueue(notify, 1, _dispatch_options={"countdown": 60, "link": pack.s("x")})',
        ),
        (
            "notify.apply_async((1,), None, 'id')",
            "airlock.enqueue(notify, 1, _dispatch_options={'task_id': 'id'})",
        ),
        (
            'notify.apply_async_on_commit((1,), queue="slow")',
            'airlock.enqueue(notify, 1, _dispatch_options={"queue": "slow"})',
        ),
        (
            'current_app.send_task("shop.tasks.notify", (1,), countdown=5)',
            'airlock.enqueue("shop.tasks.notify", 1, _dispatch_options={"countdown": 5})',
        ),
        ("current_app.send_task(name=n, kwargs={})", "airlock.enqueue(n)"),
        ("transaction.on_commit(lambda: notify.delay(a))", "airlock.enqueue(notify, a)"),
        ("transaction.on_commit(lambda: notify.delay(a), using=b)", "airlock.enqueue(notify, a)"),
        ("transaction.on_commit(lambda a=a: notify.delay(a))", "airlock.enqueue(notify, a)"),
        (
            "transaction.on_commit(partial(notify.delay, f(a), urgent=True))",
            "airlock.enqueue(notify, f(a), urgent=True)",
        ),
        (
            "transaction.on_commit(functools.partial(notify.apply_async, (1,), priority=b))",
            'airlock.enqueue(notify, 1, _dispatch_options={"priority": b})',
        ),
        ("transaction.on_commit(notify.delay)", "airlock.enqueue(notify)"),
        ("if a: notify.delay(1); b()", "if a: airlock.enqueue(notify, 1); b()"),
    ],
)
def test_calls_are_rewritten(fixed, before, after):
    imports = (
        "import functools\nfrom functools import partial\nfrom celery import chord, current_app, group\n"
        "from django.db import transaction\nfrom shop.tasks import notify, pack"
    )

    assert fixed(f"def view(a, b, c, f, n):\n    {before}\n", imports) == f"def view(a, b, c, f, n):\n    {after}\n"


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("result = notify.delay(1)", "its result is used"),
        ("return notify.delay(1)", "its result is returned"),
        ("notify.delay(1).get()", "`.get` of its result is used"),
        ("lambda: notify.delay(1)", "its result is that of a lambda"),
        ("[notify.delay(x) for x in a]", "its result is used"),
        ("print(f'{notify.delay(1)}')", "its result is used"),
        ("notify.apply_async(a)", "its `args` are no literal tuple or list"),
        ("notify.apply_async((a))", "its `args` are no literal tuple or list"),
        ("notify.apply_async(kwargs=a)", "its `kwargs` are no literal dict"),
        ("notify.apply_async(kwargs={a: 1})", "a key of its `kwargs` is no literal name"),
        ("notify.apply_async(kwargs={'class': 1})", "a key of its `kwargs` is no literal name"),
        ("notify.apply_async((1,), **a)", "its options are dynamic"),
        ("notify.apply_async(*a)", "its options are dynamic"),
        ("notify.apply_async((1,), connection=a)", "the option `connection` belongs to this moment"),
        ("notify.delay(_name=1)", "the argument `_name` means something else to `enqueue()`"),
        ("notify.apply_async(kwargs={'_name': 1})", "the argument `_name` means something else to `enqueue()`"),
        ("notify.delay(1)  # noqa: AIR001", "it has a `# noqa`"),
        ("transaction.on_commit(lambda b=a: notify.delay(b))", "the lambda has parameters"),
        ("result = group(notify.s(1))()", "its result is used"),
        ("group(notify.s(1))(2)", "it is called with arguments; write it by hand, as `airlock.enqueue(canvas, ...)`"),
        ("notify.apply_async(kwargs={'b': 1, 'b': 2})", "the file would be no Python: keyword argument repeated: b"),
        ("transaction.on_commit(lambda: notify.delay(1), **a)", "the `on_commit()` has arguments that are not known"),
    ],
)
def test_what_is_not_safe_is_left_with_the_reason(project, before, reason):
    imports = "from celery import group; from django.db import transaction\nfrom shop.tasks import notify"
    text = f"{imports}\n\ndef view(self, a, f):\n    {before}\n"
    project.write("shop/views.py", text)

    answer = project.run("fix", ".")

    assert project.read() == text
    assert answer.status == 1
    place, _, left = answer.out.splitlines()[0].partition(": left ")
    assert place.startswith("shop/views.py:5:")
    assert left.endswith(f"()`: {reason}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("notify.delay(1)", "it runs when the module is imported, in no scope"),
        ("class View:\n    notify.delay(1)", "it runs when the module is imported, in no scope"),
        ("def delay():\n    notify.delay(1)", "it is part of a `delay()` of your own"),
        (
            "def f():\n    try:\n        g()\n        notify.delay(1)\n    except kombu.OperationalError: ...",
            "an `except kombu.OperationalError` is there for an error of publishing",
        ),
        (
            "def f():\n    try:\n        notify.delay(1)\n    except Exception: ...",
            "an `except Exception` is there for an error of publishing",
        ),
        (
            "def f():\n    try:\n        notify.delay(1)\n    except: ...",
            "an `except Exception` is there for an error of publishing",
        ),
        (
            "def f():\n    try:\n        notify.delay(1)\n    except* OSError: ...",
            "an `except OSError` is there for an error of publishing",
        ),
        (
            "def f():\n    with contextlib.suppress(KeyError, OSError):\n        g()\n        notify.delay(1)",
            "a `suppress(OSError)` is there for an error of publishing",
        ),
        (
            "def f():\n    with suppress(Exception):\n        notify.delay(1)",
            "a `suppress(Exception)` is there for an error of publishing",
        ),
        (
            "def f():\n    try:\n        notify.delay(1)\n    except AlreadyQueued: ...",
            "an `except AlreadyQueued` is there for an error of publishing",
        ),
        ("def f(airlock):\n    notify.delay(1)", "the name `airlock` means something else in this module"),
    ],
)
def test_what_is_in_an_unsafe_place_is_left_with_the_reason(project, text, reason):
    text = f"from shop.tasks import notify\n\n{text}\n"
    project.write("shop/views.py", text)

    answer = project.run("fix", ".")

    assert project.read() == text
    assert answer.out.splitlines()[0].endswith(f": {reason}")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("shop/migrations/0001_initial.py", "a migration runs in no scope"),
        ("shop/management/commands/remind.py", "a command runs in no scope before it has `@airlock_command`"),
    ],
)
def test_what_runs_in_no_scope_is_left(project, path, reason):
    project.write(path, "from shop.tasks import notify\ndef handle():\n    notify.delay(1)\n")

    assert project.run("fix", ".").out.splitlines()[0] == f"{path}:3:5: left `notify.delay()`: {reason}"


def test_command_with_a_scope_is_rewritten(project):
    path = "shop/management/commands/remind.py"
    project.write(
        path,
        """
        from airlock.integrations.django import airlock_command
        from shop.tasks import notify

        class Command:
            @airlock_command
            def handle(self):
                notify.delay(1)
        """,
    )

    project.run("fix", ".")

    assert "airlock.enqueue(notify, 1)" in project.read(path)


IMPORTS = "import airlock\nfrom shop.tasks import notify\n\n"


@pytest.mark.parametrize(
    ("text", "caller"),
    [
        (
            "class Paying(Task):\n    def on_failure(self, *args):\n        notify.delay(1)",
            "Celery calls `on_failure()`",
        ),
        (
            "class Mixin:\n    def after_return(self, status, retval, task_id, *args):\n        notify.delay(1)",
            "Celery calls `after_return()`",
        ),
        (
            "class Pay(Task):\n    def on_retry(self, *_):\n        with new_scope():\n            notify.delay(1)",
            "Celery calls `on_retry()`",
        ),
        ("class Shop(AppConfig):\n    def ready(self):\n        notify.delay(1)", "`ready()` runs when Django starts"),
        ("@worker_ready.connect\ndef f(**kwargs):\n    notify.delay(1)", "it receives `worker_ready`"),
        ("@signals.task_failure.connect(sender=a)\ndef f(**_):\n    notify.delay(1)", "it receives `task_failure`"),
        ("def f(**_):\n    notify.delay(1)\n\nbeat_init.connect(f)", "it receives `beat_init`"),
        (
            "@receiver([post_save, request_finished])\ndef f(**_):\n    notify.delay(1)",
            "it receives `request_finished`",
        ),
        ("def f():\n    notify.delay(1)\n\nThread(target=f).start()", "`f()` runs in a thread"),
        (
            "class A:\n    def f(self):\n        notify.delay(1)\n    def g(self):\n        pool.submit(self.f)",
            "`f()` runs",
        ),
        (
            "def g():\n    def f():\n        notify.delay(1)\n    threading.Timer(5, f).start()",
            "`f()` runs in a thread",
        ),
        (
            "def f():\n    notify.delay(1)\n\nmultiprocessing.Process(target=f).start()",
            "`f()` runs in a thread or process",
        ),
        ("def f(a):\n    notify.delay(1)\n\npool.map(f, [1, 2])", "`f()` runs in a thread or process"),
        (
            "def f():\n    notify.delay(1)\n\nasync def g():\n    await loop.run_in_executor(None, f)",
            "`f()` runs in a thread or process",
        ),
        (
            "class Worker(threading.Thread):\n    def run(self):\n        notify.delay(1)",
            "`run()` runs in a thread or process",
        ),
    ],
)
def test_what_is_called_in_no_scope_is_left(project, text, caller):
    project.write("shop/views.py", f"{IMPORTS}{text}\n")

    answer = project.run("fix", ".")

    assert project.read() == f"{IMPORTS}{text}\n"
    assert f"left `notify.delay()`: {caller}" in answer.out


@pytest.mark.parametrize(
    "text",
    [
        "class Paying(Task):\n    @airlock.scoped\n    def on_failure(self, *args):\n        notify.delay(1)",
        "@worker_ready.connect\ndef f(**_):\n    with airlock.scope():\n        notify.delay(1)",
        "class Payment(Handler):\n    def on_success(self, order):\n        notify.delay(1)",
        "@receiver(post_save)\ndef f(**_):\n    notify.delay(1)",
        "def f(a):\n    with airlock.scope():\n        notify.delay(1)\n\nThread(target=f).start()",
        "def f(a):\n    notify.delay(1)\n\npool.submit(g, f)",
        "class Lamp:\n    def ready(self):\n        notify.delay(1)",
        "class Report:\n    def run(self):\n        notify.delay(1)",
        "def f(a):\n    notify.delay(1)\n\nloop.run_in_executor(f, g)",
    ],
)
def test_what_has_a_scope_or_may_have_one_is_rewritten(fixed, text):
    assert "airlock.enqueue(notify, 1)" in fixed(text, IMPORTS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def f():\n    notify.delay(1)\n    raise Http404", "a `raise` or the like follows"),
        ("def f():\n    if a:\n        notify.delay(1)\n    b()\n    raise Http404", "a `raise` or the like follows"),
        (
            "def f():\n    try: g()\n    except KeyError:\n        notify.delay(1)\n        raise",
            "a `raise` or the like follows",
        ),
        ("def f(self):\n    notify.delay(1)\n    self.retry(countdown=5)", "a `raise` or the like follows"),
        ("def f():\n    notify.delay(1)\n    sys.exit(1)", "a `raise` or the like follows"),
        ("def f(self):\n    notify.delay(1)\n    return self.retry()", "a `raise` or the like follows"),
        ("def f():\n    try: g()\n    finally:\n        notify.delay(1)", "it is in a `finally`"),
        ("def f():\n    notify.delay(1)\n    return HttpResponse(status=402)", "a response with status 4xx"),
        ("def f():\n    notify.delay(1)\n    return JsonResponse({}, status=500)", "a response with status 4xx"),
        (
            "def f():\n    notify.delay(1)\n    return Response(status=status.HTTP_404_NOT_FOUND)",
            "a response with status",
        ),
        ("def f():\n    notify.delay(1)\n    return HttpResponseForbidden()", "a response with status 4xx"),
        (
            "def f():\n    notify.delay(1)\n    return Response({}, status.HTTP_400_BAD_REQUEST)",
            "a response with status",
        ),
        ("def f():\n    notify.delay(1)\n    return Response({}, 403)", "a response with status 4xx"),
        ("def f():\n    notify.delay(1)\n    return 404, {}", "a response with status 4xx"),
        (
            "def f():\n    notify.delay(1)\n    return HttpResponse(status=HTTPStatus.GONE)",
            "a response with status 4xx",
        ),
        (
            "@shared_task(bind=True)\ndef f(task):\n    notify.delay(1)\n    task.retry()",
            "a `raise` or the like follows",
        ),
        ("@shared_task\ndef f():\n    notify.delay(1)\n    f.retry()", "a `raise` or the like follows"),
        ("def f():\n    while True:\n        notify.delay(1)", "it is in an endless loop"),
        (
            "async def f():\n    while 1:\n        for x in g():\n            if x: break\n            notify.delay(1)",
            "it is in an endless loop",
        ),
    ],
)
def test_what_would_be_discarded_for_sure_is_left(project, text, reason):
    project.write("shop/views.py", f"{IMPORTS}{text}\n")

    answer = project.run("fix", ".")

    assert project.read() == f"{IMPORTS}{text}\n"
    assert f"left `notify.delay()`: {reason}" in answer.out


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    with airlock.detached():\n        notify.delay(1)\n    raise Http404",
        "def f():\n    if a:\n        notify.delay(1)\n        return 1\n    raise Http404",
        "def f():\n    notify.delay(1)\n    if a:\n        raise Http404",
        "def f():\n    notify.delay(1)\n    return Response(status=status.HTTP_201_CREATED)",
        "def f():\n    notify.delay(1)\n    if a:\n        return HttpResponseNotFound()",
        "def f():\n    notify.delay(1)\n    return HttpResponse(status=HTTPStatus.CREATED)",
        "def f():\n    notify.delay(1)\n    return Response([1, 500])",
        "def f(order):\n    notify.delay(1)\n    order.retry()",
        "def f():\n    while True:\n        notify.delay(1)\n        if g():\n            break",
        "def f():\n    while True:\n        if g(): return\n        notify.delay(1)",
        "def f():\n    while True:\n        with airlock.scope():\n            notify.delay(1)",
        "def f():\n    while g():\n        notify.delay(1)",
        "def f():\n    while True:\n        x = yield\n        notify.delay(1)",
    ],
)
def test_what_may_go_out_all_the_same_is_rewritten(fixed, text):
    assert "airlock.enqueue(notify, 1)" in fixed(text, IMPORTS)


def test_reason_names_the_line_where_it_is_now(project):
    before = "from shop.tasks import notify\n\ndef view(a):\n    notify.delay(1)\n    notify.delay(a)\n    a.clear()\n"
    project.write("shop/views.py", before)

    answer = project.run("fix", ".")

    line = project.read().splitlines().index("    a.clear()") + 1
    assert line > 6
    assert f"`a` is changed in line {line}," in answer.out


def test_except_for_something_else_does_not_matter(fixed):
    before = "def view():\n    try:\n        find()\n        notify.delay(1)\n    except KeyError: ...\n"

    assert "airlock.enqueue(notify, 1)" in fixed(before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            """
            notify.delay(
                1,  # the order
                urgent=True,
                # at last
            )
            """,
            """
            airlock.enqueue(
                notify,
                1,  # the order
                urgent=True,
                # at last
            )
            """,
        ),
        (
            """
            notify.delay(  # first
                1
            )
            """,
            """
            airlock.enqueue(  # first
                notify,
                1
            )
            """,
        ),
        (
            """
            notify.apply_async(
                kwargs={
                    "order": find(
                        1
                    ),
                    "urgent": True  # very
                },
                countdown=5,
            )
            """,
            """
            airlock.enqueue(
                notify,
                order=find(
                    1
                ),
                urgent=True,
                _dispatch_options={"countdown": 5},
            )
            """,
        ),
        (
            """
            notify.apply_async(
                (1, 2),
                queue="slow",
                countdown=5  # seconds
            )
            """,
            """
            airlock.enqueue(
                notify,
                1,
                2,
                _dispatch_options={"queue": "slow", "countdown": 5}  # seconds
            )
            """,
        ),
        (
            """
            transaction.on_commit(
                lambda: notify.delay(
                    order=1,
                    urgent=True,
                )
            )
            """,
            """
            airlock.enqueue(
                notify,
                order=1,
                urgent=True,
            )
            """,
        ),
        (
            """
            transaction.on_commit(
                lambda: notify.delay(1)
            )
            """,
            """
            airlock.enqueue(notify, 1)
            """,
        ),
    ],
)
def test_layout_and_comments_are_kept(fixed, before, after):
    def in_function(text: str) -> str:
        return f"def view():\n    {dedent(text).strip().replace(os.linesep, os.linesep + '    ')}\n"

    if "# very" in before:  # it has no place of its own in the result
        assert fixed(in_function(before)) == in_function(before)
        before = before.replace("  # very", "")
    assert fixed(in_function(before)) == in_function(after)


def test_second_run_changes_nothing(project):
    project.write(
        "shop/views.py", "from shop.tasks import notify\ndef f():\n    notify.delay(1)\n    x = notify.delay(2)\n"
    )
    first = project.run("fix", ".")
    text = project.read()

    second = project.run("fix", ".")

    assert first.out.endswith("1 calls in 1 files rewritten, 1 left.\n")
    assert second.out.endswith("0 calls in 0 files rewritten, 1 left.\n")
    assert project.read() == text


def test_many_files_are_rewritten_as_few_are(project):
    for number in range(20):
        project.write(f"shop/views_{number}.py", "from .tasks import notify\ndef f():\n    notify.delay(1)\n")

    assert project.run("fix", ".").out == "20 calls in 20 files rewritten, 0 left.\n"
    assert all("airlock.enqueue(notify, 1)" in project.read(f"shop/views_{number}.py") for number in range(20))


def test_status_is_0_when_nothing_is_left(project):
    project.write("shop/views.py", "from shop.tasks import notify\ndef f():\n    notify.delay(1)\n")

    assert project.run("fix", ".").status == 0


@pytest.mark.parametrize("start", ["", "\ufeff", "\f\n"])
def test_diff_can_be_applied_and_changes_nothing_itself(project, start):
    text = f"{start}from shop.tasks import notify\ndef f():\n    notify.delay(1)"  # no line end
    (project.directory / "shop/views.py").write_text(text)

    answer = project.run("fix", ".", "--diff")

    assert project.read() == text
    assert "1 calls in 1 files would be rewritten, 0 left." in answer.err
    subprocess.run(["git", "apply", "-"], input=answer.out, text=True, check=True, cwd=project.directory)
    assert "airlock.enqueue(notify, 1)" in project.read()


def test_what_is_left_is_reported_with_its_line_in_the_rewritten_file(project):
    project.write(
        "shop/views.py",
        """
        from shop.tasks import notify

        def view():
            first = notify.delay(1)
            notify.apply_async(
                (2,),
            )
            if first: notify.delay(3); second = notify.delay(4)
            third = notify.delay(5)
        """,
    )

    answer = project.run("fix", ".")

    lines = project.read().splitlines()
    left = [lines[int(place.split(":")[1]) - 1].strip() for place in answer.out.splitlines()[:3]]
    assert left == [
        "first = notify.delay(1)",
        "if first: airlock.enqueue(notify, 3); second = notify.delay(4)",
        "third = notify.delay(5)",
    ]


def test_tests_are_left_unless_asked_for(project):
    text = "from shop.tasks import notify\ndef test_it():\n    notify.delay(1)\n"
    project.write("tests/test_views.py", text)

    project.run("fix", ".")
    assert project.read("tests/test_views.py") == text

    project.run("fix", ".", "--tests")
    assert "airlock.enqueue(notify, 1)" in project.read("tests/test_views.py")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"# coding: latin-1\r\n# \xe4\r\n"])
def test_encoding_and_line_ends_are_kept(project, start):
    before = start + b"import airlock\r\nfrom shop.tasks import notify\r\ndef f():\r\n\tnotify.delay(1)\r\n"
    file = project.directory / "shop/views.py"
    file.write_bytes(before)

    project.run("fix", ".")

    assert file.read_bytes() == before.replace(b"notify.delay(1)", b"airlock.enqueue(notify, 1)")


@pytest.mark.parametrize(
    ("start", "encoding"), [("# coding: latin-1\n", "latin-1"), ("\f\n", "utf-8"), ('"\x1c\u2028"\n', "utf-8")]
)
def test_calls_behind_other_characters_are_found(project, start, encoding):
    before = f'{start}import airlock\nfrom shop.tasks import notify\ndef f():\n    "ä"; notify.delay("ä")\n'
    file = project.directory / "shop/views.py"
    file.write_bytes(before.encode(encoding))

    project.run("fix", ".")

    assert file.read_bytes().decode(encoding) == before.replace("notify.delay(", "airlock.enqueue(notify, ")


def test_calls_of_unknown_things_are_counted(project):
    project.write("shop/views.py", "def f(timer):\n    timer.delay(1)\n")

    assert "1 calls are of things not known as tasks" in project.run("fix", ".").out


def test_file_that_is_no_python_is_left(project):
    project.write("shop/views.py", "def :")

    assert project.run("fix", ".").out.startswith("shop/views.py:1:1: left: ")


def test_terminal_sees_progress(project):
    project.write("shop/views.py", "from shop.tasks import notify\ndef f():\n    notify.delay(1)\n")
    ours, theirs = pty.openpty()

    subprocess.run(
        [sys.executable, "-m", "airlock_lint", "fix", "."], stdout=subprocess.DEVNULL, stderr=theirs, check=True
    )

    os.close(theirs)
    shown = os.read(ours, 10000).decode()
    os.close(ours)
    assert "reading 3/3" in shown
    assert "rewriting 1/1" in shown


# The import


CALL = "\n\ndef f():\n    notify.delay(1)\n"
CALLED = "\n\ndef f():\n    airlock.enqueue(notify, 1)\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "from shop.tasks import notify",
            "import airlock\n\nfrom shop.tasks import notify",
        ),
        (
            '"""Doc."""\n\nfrom __future__ import annotations\n\nfrom .tasks import notify',
            '"""Doc."""\n\nfrom __future__ import annotations\n\nimport airlock\n\nfrom .tasks import notify',
        ),
        (
            "import os\n\nfrom django import db\n\nfrom .tasks import notify",
            "import os\n\nimport airlock\nfrom django import db\n\nfrom .tasks import notify",
        ),
        (
            "import aaa\nimport celery\n\nfrom .tasks import notify",
            "import aaa\nimport airlock\nimport celery\n\nfrom .tasks import notify",
        ),
        (
            "import os\nimport sys\n\nfrom .tasks import notify",
            "import os\nimport sys\n\nimport airlock\n\nfrom .tasks import notify",
        ),
        (
            "import aaa\n\nfrom .tasks import notify",
            "import aaa\nimport airlock\n\nfrom .tasks import notify",
        ),
        (
            "# A comment.\n\n# About Django.\nfrom django import db\nfrom .tasks import notify",
            "# A comment.\n\nimport airlock\n# About Django.\nfrom django import db\nfrom .tasks import notify",
        ),
        (
            "import os\n\nfrom installed.tasks import notify",
            "import os\n\nimport airlock\nfrom installed.tasks import notify",
        ),
        (
            "import os\n\nmode = 1\nfrom shop.tasks import notify",
            "import os\n\nimport airlock\n\nmode = 1\nfrom shop.tasks import notify",
        ),
    ],
)
def test_import_is_put_where_isort_would(project, before, after):
    project.write("shop/views.py", before + "\n" + CALL)

    project.run("fix", ".")

    assert project.read() == after + "\n" + CALLED


@pytest.mark.parametrize(
    ("imports", "call"),
    [
        ("import airlock", "airlock.enqueue(notify, 1)"),
        ("import airlock as lock", "lock.enqueue(notify, 1)"),
        ("from airlock import enqueue", "enqueue(notify, 1)"),
        ("from airlock import enqueue as later, scope", "later(notify, 1)"),
        ("import airlock.ext", "airlock.enqueue(notify, 1)"),
    ],
)
def test_import_that_is_there_is_used(project, imports, call):
    project.write("shop/views.py", f"{imports}\nfrom shop.tasks import notify\n{CALL}")

    project.run("fix", ".")

    assert project.read() == f"{imports}\nfrom shop.tasks import notify\n{CALL.replace('notify.delay(1)', call)}"


@pytest.mark.parametrize(
    "text",
    [
        "def f(enq):\n    notify.delay(1)",
        "def f(*, enq):\n    notify.delay(1)",
        "def f():\n    notify.delay(1)\n    enq = 1",
        "def f():\n    def g():\n        notify.delay(1)\n    for enq in g(): ...",
        "def f():\n    notify.delay(1)\nenq = None",
        "def f():\n    notify.delay(1)\ndef g():\n    global enq\n    enq = 1",
    ],
)
@pytest.mark.parametrize("imports", ["from airlock import enqueue as enq", "import airlock as enq"])
def test_call_is_left_where_the_imported_name_means_something_else(project, imports, text):
    text = f"{imports}\nfrom shop.tasks import notify\n\n{text}\n"
    project.write("shop/views.py", text)

    answer = project.run("fix", ".")

    assert project.read() == text
    assert answer.out.splitlines()[0].endswith(": the name `enq` means something else here")


def test_same_name_in_another_function_does_not_matter(project):
    project.write(
        "shop/views.py",
        "from airlock import enqueue\nfrom shop.tasks import notify\ndef f(): notify.delay()\ndef g(enqueue): ...\n",
    )

    project.run("fix", ".")

    assert "def f(): enqueue(notify)" in project.read()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '"""Doc."""\n\n\ndef f():\n    from .tasks import notify\n    notify.delay()\n',
            '"""Doc."""\n\nimport airlock\n\n\ndef f():\n    from .tasks import notify\n    airlock.enqueue(notify)\n',
        ),
        (
            "def f():\n    from shop.tasks import notify\n    notify.delay(1)\n",
            "import airlock\n\n\ndef f():\n    from shop.tasks import notify\n    airlock.enqueue(notify, 1)\n",
        ),
    ],
)
def test_module_without_imports_gets_one(project, before, after):
    project.write("shop/views.py", before)

    project.run("fix", ".")

    assert project.read() == after
