"""Random functions: the tasks of those that `airlock-lint fix` rewrites get the arguments that they got before."""

from __future__ import annotations

import ast
import random
import re
from collections import Counter
from textwrap import indent
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST, FUNCTIONS = 0, 200
HEAD = """\
import airlock
from django.db import transaction
from shop.models import Order
from shop.tasks import notify


"""
STATEMENTS = [
    "a = 5",
    "a = [1]",
    "a += [2]",
    "b = a",
    "b = [a, 3]",
    "b = {'a': a}",
    "b.append(4)",
    "a.append(4)",
    "b[0] = 6",
    "b = str(a)",
    "b = None",
    "del a",
    "self.a = a",
    "self.a = [a]",
    "a = self.lines",
    "self.lines.append(7)",
    "look = len(str(a))",
    "self.status = 2",
    "b = self.status",
    "order = Order.objects.create()",
    "order, created = Order.objects.get_or_create()",
    "order = Order()",
    "order.save()",
    "order.delete()",
    "order.pk = 9",
    "twin = order",
    "twin.pk = None",
    "twin.save()",
    "twin.delete()",
    "with transaction.atomic():\n    order.save()",
    "if len(str(a)) > 3:\n    b = 2",
    "if self.status == 1:\n    order = Order()\n    order.save()",
    "for a in (1, 2): ...",
    "for b in [[1], [2]]:\n    a = b",
    "with box(8) as a: ...",
    "import math as a",
    "from math import pi as a",
    "match [1, 2]:\n    case [a, *b]: ...",
    "match {'x': 1}:\n    case {**a}: ...",
    "try:\n    1 / 0\nexcept ZeroDivisionError as b: ...",
    "(a := 4)",
    "[(a := x) for x in (1, 2)]",
    "def again():\n    nonlocal a\n    a = 7",
    "def again():\n    a.append(7)",
    "again()",
    "class a: ...",
    "log(a)",
    "notify.apply_async((b,))",
]
#: What others do to a value is looked at for a lambda alone.
BY_OTHERS = ["grow(a)", "grow(b)", "self.grow()", "transaction.on_commit(lambda: grow(a))"]
ARGUMENTS = [
    "a",
    "b",
    "a",
    "b",
    "order.pk",
    "order.id",
    "self.status",
    "str(a)",
    "f'{b}'",
    "[a, b]",
    "*b",
    "x=b",
    "{'b': b}",
]
CALLS = [
    "transaction.on_commit(lambda: notify.delay({}))",
    "transaction.on_commit(lambda: notify.delay({}))",
    "transaction.on_commit(lambda: notify.s({}).delay())",
    "notify.delay({})",
    "notify.delay_on_commit({})",
]


def function(seed: int) -> str:
    """A function that publishes once, if it does not fail."""
    dice = random.Random(seed)
    call = dice.choice(CALLS).format(dice.choice(ARGUMENTS))
    statements = [*STATEMENTS, *BY_OTHERS] if "lambda" in call else STATEMENTS
    before, after = (dice.choices(statements, k=dice.randrange(5)) for _ in range(2))
    cut = dice.randrange(len(before) + 1)
    loop = dice.random() < 0.3
    body = [*before[cut:], call, *after[: len(after) // 2]]
    if loop:
        body = ["for turn in range(2):", *(indent(each, "    ") for each in body)]
    return "def view(self, a, b, order):\n" + indent(
        "\n".join([*before[:cut], *body, *after[len(after) // 2 :]]), "    "
    )


class Order:
    """As much of a model as the functions use. Its objects have a key when they are saved, and none when deleted."""

    def __init__(self) -> None:
        self.status, self.lines, self.a = 1, [1], [1]
        self.pk: int | None = None

    @property
    def id(self) -> int | None:
        return self.pk

    def save(self) -> None:
        self.pk = self.pk or 1

    def delete(self) -> None:
        self.pk = None

    def grow(self) -> None:
        grow(self.a)

    def __repr__(self) -> str:
        return f"Order {self.pk} {self.status} {self.lines}"

    @classmethod
    def create(cls) -> Order:
        order = cls()
        order.save()
        return order

    objects: Any


Order.objects = SimpleNamespace(create=Order.create, get_or_create=lambda: (Order.create(), True))


def grow(value: Any) -> None:
    if isinstance(value, list):
        value.append("more")
        for each in value:
            grow(each)


class Run:
    """What a program publishes. What it enqueues is published at once, and kept to see what has become of it."""

    def __init__(self, text: str) -> None:
        self.callbacks: list[Callable[[], object]] = []
        self.messages: list[str] = []
        self.kept: list[tuple[Any, ...]] = []
        tree = ast.parse(text)
        tree.body = [each for each in tree.body if isinstance(each, ast.FunctionDef)]
        task = SimpleNamespace(
            delay=self.publish,
            delay_on_commit=lambda *args, **kwargs: self.callbacks.append(lambda: self.publish(*args, **kwargs)),
            apply_async=lambda args: self.publish(*args),
            s=lambda *args, **kwargs: SimpleNamespace(
                delay=lambda: self.publish(*args, **kwargs), arguments=(args, kwargs)
            ),
        )
        names = {
            "airlock": SimpleNamespace(enqueue=self.enqueue),
            "transaction": SimpleNamespace(on_commit=self.callbacks.append, atomic=Box),
            "notify": task,
            "Order": Order,
            "grow": grow,
            "box": Box,
            "log": repr,
        }
        exec(compile(tree, "view", "exec"), names)
        order, self.fails = Order(), False
        order.save()
        try:
            names["view"](order, [0], [0], Order())  # type: ignore[operator]
            order.status = 3  # the caller goes on
            for callback in self.callbacks:
                callback()
        except Exception:
            self.fails = True

    def publish(self, *args: Any, **kwargs: Any) -> None:
        self.messages.append(repr((args, kwargs)))

    def enqueue(self, task: Any, *args: Any, **kwargs: Any) -> None:
        if hasattr(task, "arguments"):
            args, kwargs = task.arguments
        self.publish(*args, **kwargs)
        self.kept.append((args, kwargs))


class Box:
    def __init__(self, value: object = None) -> None:
        self.value = value

    def __enter__(self) -> object:
        return self.value

    def __exit__(self, *error: object) -> None: ...


def test_rewritten_functions_publish_what_they_published(project):
    project.write("shop/models.py", "")
    texts = {f"shop/views_{seed}.py": HEAD + function(seed) + "\n" for seed in range(FIRST, FIRST + FUNCTIONS)}
    texts = {
        path: text for path, text in texts.items() if _compiles(text) and not _grows_what_is_published_at_once(text)
    }
    for path, text in texts.items():
        (project.directory / path).write_text(text)

    first = project.run("fix", ".")
    rewritten = {path: after for path, before in texts.items() if (after := project.read(path)) != before}
    second = project.run("fix", ".")

    compared = 0
    for path, after in rewritten.items():
        old, new = Run(texts[path]), Run(after)
        if old.fails:  # and publishes nothing
            continue
        compared += 1
        assert not new.fails, after
        assert Counter(new.messages) == Counter(old.messages), f"{texts[path]}\n{after}"
        assert {repr(each) for each in new.kept} <= set(new.messages), f"{texts[path]}\n{after}"
    assert compared > 20
    assert {path: project.read(path) for path in rewritten} == rewritten
    assert _left(first.out) == _left(second.out)


def _left(report: str) -> str:
    return re.search(r"\d+ left", report)[0]  # type: ignore[index]


def _grows_what_is_published_at_once(text: str) -> bool:
    return "notify.apply_async" in text and "grow" in text


def _compiles(text: str) -> bool:
    try:
        compile(text, "view", "exec")
    except SyntaxError:
        return False
    return True
