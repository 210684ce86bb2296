"""`airlock-lint check`: codes, what is passed over, and what is printed."""

import json
import subprocess
import sys

import pytest

DIRECT = """
    from shop.tasks import notify

    def view():
        notify.delay(1)
        notify.apply_async((1,))
"""


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("notify.delay(1)", "AIR001"),
        ("notify.s(1).delay()", "AIR001"),
        ("notify.apply_async((1,))", "AIR002"),
        ("notify.delay_on_commit(1)", "AIR003"),
        ("notify.apply_async_on_commit((1,))", "AIR003"),
        ("app.send_task('shop.tasks.notify', (1,))", "AIR004"),
        ("transaction.on_commit(lambda: notify.delay(1))", "AIR005"),
        ("transaction.on_commit(partial(notify.delay, 1))", "AIR005"),
        ("transaction.on_commit(functools.partial(notify.apply_async, (1,)), using='other')", "AIR005"),
        ("transaction.on_commit(notify.delay)", "AIR005"),
        ("transaction.on_commit(lambda: [notify.delay(1)])", "AIR001"),
        ("chord([notify.s(1)])(notify.si(2))", "AIR001"),
        ("group(notify.s(1))()", "AIR001"),
        ("(notify.s(1) | notify.si(2))()", "AIR001"),
    ],
)
def test_each_way_to_publish_has_its_code(project, call, code):
    codes = project.codes(f"""
        import functools
        from functools import partial
        from celery import chord, current_app as app, group
        from django.db import transaction
        from shop.tasks import notify

        def view():
            {call}
    """)

    assert codes == [(8, code)]


@pytest.mark.parametrize("call", ["notify.s(1)()", "notify(1)", "(1 | 2)()", "chord([])", "print(group())", "make()()"])
def test_calls_that_run_in_place_are_left_alone(project, call):
    codes = project.codes(f"""
        from celery import chord, group
        from shop.makers import make
        from shop.tasks import notify

        def view():
            {call}
    """)

    assert codes == []


@pytest.mark.parametrize(
    ("effect", "imports"),
    [
        ("send_mail('a', 'b', 'c', ['d'])", "from django.core.mail import send_mail"),
        ("mail.mail_admins('a', 'b')", "from django.core import mail"),
        ("EmailMessage('a').send()", "from django.core.mail import EmailMessage"),
        ("requests.post('url')", "import requests"),
        ("session.put('url')", "import requests; session = requests.Session()"),
        ("httpx.delete('url')", "import httpx"),
    ],
)
@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("class Order(Model):\n    def save(self):\n        EFFECT", "AIR006"),
        ("@receiver(post_save)\ndef react(**kwargs):\n    EFFECT", "AIR007"),
        ("def react(**kwargs):\n    EFFECT\npost_save.connect(react)", "AIR007"),
        ("def view():\n    with transaction.atomic():\n        EFFECT", "AIR008"),
        ("@transaction.atomic\ndef view():\n    EFFECT", "AIR008"),
        ("@transaction.atomic(using='x')\nasync def view():\n    EFFECT", "AIR008"),
    ],
)
def test_effects_have_the_code_of_their_place(project, effect, imports, place, code):
    header = "from django.db import transaction; from django.dispatch import receiver"

    found = project.codes(f"{header}\n{imports}\n{place.replace('EFFECT', effect)}\n")

    assert [each for _, each in found] == [code]


def test_effects_elsewhere_are_left_alone(project):
    assert (
        project.codes("""
        import requests
        from django.core.mail import send_mail
        from django.db import transaction

        def view():
            send_mail("a", "b", "c", ["d"])
            requests.get("url")
            with transaction.atomic():
                requests.get("url")
                transaction.on_commit(lambda: requests.post("url"))
                def later():
                    send_mail("a", "b", "c", ["d"])

        def save():
            requests.post("url")
    """)
        == []
    )


@pytest.mark.parametrize(
    ("comment", "passed_over"),
    [
        ("# noqa", True),
        ("# NOQA: AIR001", True),
        ("# noqa: E501, AIR001", True),
        ("# noqa:AIR001 because", True),
        ("# noqa: AIR002", False),
        ("# noqa: E501", False),
    ],
)
def test_noqa_passes_over_its_codes(project, comment, passed_over):
    codes = project.codes(f"""
        from shop.tasks import notify

        def view():
            notify.delay(1)  {comment}
            notify.delay(
                1,
            )  {comment}
    """)

    assert codes == ([] if passed_over else [(4, "AIR001"), (5, "AIR001")])


def test_select_and_ignore_choose_codes(project):
    assert project.codes(DIRECT, "--select", "AIR001") == [(4, "AIR001")]
    assert project.codes(DIRECT, "--ignore", "AIR001") == [(5, "AIR002")]
    assert project.codes(DIRECT, "--select", "AIR", "--ignore", "air001,AIR002") == []


def test_status_says_whether_there_are_findings(project):
    assert project.run("check", ".").status == 0

    project.write("shop/views.py", DIRECT)
    assert project.run("check", ".").status == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["check"],
        ["check", "missing"],
        ["check", ".", "--select", "AIR999"],
        ["check", ".", "--write-baseline"],
        ["check", ".", "--baseline", "missing.json"],
        ["check", ".", "--baseline", "shop/tasks.py"],
        ["fix", "missing"],
    ],
)
def test_wrong_command_has_status_2(project, arguments):
    answer = project.run(*arguments)

    assert answer.status == 2
    assert answer.err


def test_file_that_is_no_python_is_reported(project):
    assert project.codes("def :") == [(1, "AIR000")]


def test_tests_are_left_out_unless_asked_for(project):
    for path in ("shop/tests/helpers.py", "shop/test_views.py", "shop/tests.py", "conftest.py"):
        project.write(path, DIRECT)

    assert project.run("check", ".").codes == []
    assert len(project.run("check", ".", "--tests").codes) == 8
    assert len(project.run("check", "shop/tests.py").codes) == 2


def test_exclude_leaves_files_out(project):
    project.write("old/views.py", DIRECT)

    assert project.run("check", ".").status == 1
    assert project.run("check", ".", "--exclude", "old/*").status == 0


def test_excluded_files_still_tell_what_is_a_task(project):
    project.write("shop/views.py", DIRECT)

    assert project.run("check", ".", "--exclude", "*/tasks.py").codes == [(4, "AIR001"), (5, "AIR002")]


def test_baseline_passes_over_old_findings(project):
    project.write("shop/views.py", DIRECT)

    assert project.run("check", ".", "--baseline", "old.json", "--write-baseline").status == 0
    assert project.run("check", ".", "--baseline", "old.json").codes == []

    # A line above changes nothing, a third call is new.
    project.write("shop/views.py", "# A line above.\n\n" + project.read() + "    notify.delay(1)\n")
    assert project.run("check", ".", "--baseline", "old.json").codes == [(8, "AIR001")]


def test_json_has_places(project):
    project.write("shop/views.py", DIRECT)

    found = json.loads(project.run("check", ".", "--format", "json").out)

    assert found[0] == {
        "path": "shop/views.py",
        "code": "AIR001",
        "message": "`notify.delay()` bypasses Airlock; use `airlock.enqueue()`",
        "line": 4,
        "column": 5,
        "end_line": 4,
        "end_column": 20,
    }


def test_columns_count_characters(project):
    project.write("shop/views.py", "from shop.tasks import notify\ndef view(): 'ä€'; notify.delay('ü')\n")

    (found,) = json.loads(project.run("check", ".", "--format", "json").out)

    assert (found["column"], found["end_column"]) == (19, 36)


def test_github_annotations_escape_what_they_must(project):
    project.write("a,b/views.py", DIRECT)

    line = project.run("check", ".", "--format", "github").out.splitlines()[0]

    assert line.startswith("::warning file=a%2Cb/views.py,line=4,col=5,endLine=4,title=AIR001::`notify.delay()` ")


def test_sarif_names_rules_and_places(project):
    project.write("shop/views.py", DIRECT)

    log = json.loads(project.run("check", ".", "--format", "sarif").out)

    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    assert {result["ruleId"] for result in run["results"]} == {"AIR001", "AIR002"}
    assert {"AIR001", "AIR002"} <= {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "shop/views.py"}
    assert place["region"] == {"startLine": 4, "startColumn": 5, "endLine": 4, "endColumn": 20}


def test_many_files_give_the_same_findings_as_few(project):
    for number in range(120):
        project.write(f"many/views_{number}.py", DIRECT)

    codes = project.run("check", "many", "shop").codes

    assert codes == [(4, "AIR001"), (5, "AIR002")] * 120


def test_command_runs(project):
    project.write("shop/views.py", DIRECT)

    run = subprocess.run(
        [sys.executable, "-m", "airlock_lint", "check", "."], capture_output=True, text=True, check=False
    )

    assert run.returncode == 1
    assert run.stdout.startswith("shop/views.py:4:5: AIR001 `notify.delay()` bypasses Airlock")


def test_flake8_runs_the_plugin(project):
    project.write(
        "shop/views.py",
        """
        from shop.tasks import notify


        def view(timer):
            notify.delay(1)
            notify.delay(2)  # noqa: AIR001
            timer.delay(3)
        """,
    )

    run = subprocess.run(
        [sys.executable, "-m", "flake8", "--isolated", "--select", "AIR", "shop"],
        capture_output=True,
        text=True,
        check=False,
    )

    message = "`notify.delay()` bypasses Airlock; use `airlock.enqueue()`"
    assert run.stdout == f"shop/views.py:5:5: AIR001 {message}\n", run.stderr
