"""`airlock-lint fix`: a task gets the arguments that it would have got."""

from __future__ import annotations

from textwrap import dedent, indent

import pytest

IMPORTS = """\
from airlock import enqueue as enq
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver
from shop.models import Order
from shop.tasks import notify, pack

STATUS = "paid"
LIMITS = [1]
"""


def late(argument: str, *, before: str = "", after: str = "", signature: str = "self, a, f") -> str:
    """A function that publishes on commit, and does something before and after that."""
    lines = [before, f"transaction.on_commit(lambda: notify.delay({argument}))", after]
    body = "\n".join(dedent(each).strip("\n") for each in lines if each)
    return f"def view({signature}):\n{indent(body, '    ')}\n"


def view(body: str) -> str:
    return f"def view(a, b):\n{indent(dedent(body).strip(chr(10)), '    ')}\n"


SAFE = {
    "constant": late("1, urgent=True"),
    "parameter": late("a"),
    "name bound in a branch": late("a", before="if f:\n    a = 1"),
    "name bound in a loop above": late("b", before="b = 0\nfor each in a:\n    b += 1"),
    "name of the module": late("STATUS"),
    "parameter of an outer function": f"def outer(a, f):\n{indent(late('a', signature=''), '    ')}    return view\n",
    "parameter of the lambda": "def view(a):\n    transaction.on_commit(lambda a=a: notify.delay(a))\n    a = 2\n",
    "attribute that was bound to a name": late("b", before="b = a.status", after="a.status = 1\na.save()"),
    "name that was passed to a function": late("a", before="f(a)"),
    "name that has another name": late("b", before="b = a"),
    "task of the module": (
        "task = notify\ndef view(a):\n    transaction.on_commit(lambda: task.delay(a))\n    task.delay(1)\n"
    ),
    "attribute of a module": "import shop.tasks\n" + late("1").replace("notify", "shop.tasks.notify"),
    "task that the function imports": (
        "def view(a):\n    from shop import tasks\n    transaction.on_commit(lambda: tasks.notify.delay(a))\n"
    ),
    "text of a number": late("str(a)", signature="a: int"),
    "f-string of a key": late('f"order-{order_id}"', signature="order_id"),
    "sum of what is immutable": late("a + 1 if a > 2 else -a", signature="a: int | None"),
    "list and dict that are made anew": late("[a, {'a': a}], (1,)"),
    "list that only this function has": late("*b", before="b = []\nfor each in a:\n    b.append(each.pk)"),
    "dict that only this function has": late("**b", before="b = dict(a=1)\nb['c'] = 2"),
    "list that is bound anew": (
        "def view(a):\n    b = []\n    for x in a:\n        b.append(x)\n        notify.delay(b)\n        b = []\n"
    ),
    "name that is compared, formatted and logged": late(
        "a", after="if a and a > 2:\n    f'{a}'\n    logger.info('%s', a)\nassert a == 1\n'%s' % a"
    ),
    "name that is published again": late(
        "a",
        after="""
            pack.delay(a)
            pack.apply_async((a,), {"b": a})
            transaction.on_commit(lambda: pack.delay(a))
            transaction.on_commit(lambda a=a: pack.delay(a))
            transaction.on_commit(partial(pack.delay, a))
        """,
    ),
    "key of what was created": late("a.pk", before="a = Order.objects.create()"),
    "key of what was got": late("str(a.id)", before="a = Order.objects.select_for_update().get(pk=1)"),
    "key of what was got or created": late("a.id", before="a, created = Order.objects.get_or_create()"),
    "key of what was got or is not found": late("a.id", before="a = get_object_or_404(Order)"),
    "key of what a form has saved": late("a.id", before="a = f.save()"),
    "key of what was saved": late("a.id", before="a = Order()\nwith transaction.atomic():\n    a.save()", after="f(a)"),
    "key of self": late("self.pk", before="super().save(*args, **kwargs)", signature="self, *args, **kwargs"),
    "key that was awaited": "async " + late("a.pk", before="a = await Order.objects.acreate()"),
    "key of what was saved, as a signal tells": "@receiver(post_save)\n" + late("instance.pk", signature="instance"),
    "key of what was saved, as a signal tells by connect": (
        late("instance.pk", signature="instance") + "post_save.connect(view)\n"
    ),
    "signature": "def view(a):\n    transaction.on_commit(lambda: (notify.s(a) | pack.s(b=1)).delay())\n",
    "canvas": "def view(a):\n    transaction.on_commit(lambda: group(notify.s(a), pack.s(a)).delay())\n",
    "bound signature": "def view(a):\n    b = notify.s(1)\n    transaction.on_commit(lambda: b.delay(a))\n",
    "key that was awaited with another value": "async "
    + late("a.pk", before="a, created = await Order.objects.aget_or_create()"),
    "name that the function imports": late("b", before="from shop.tasks import pack as b", after="f(b)"),
    "text of what is annotated": late("str(b)", before="b: int = f()"),
    "text of a text": late("str(b)", before="b = str(a)"),
    "text of one of two numbers": late("str(b)", before="b = 1 if f else 2"),
    "yield": late("a, b.pk", before="b = Order.objects.get()", after="yield b"),
    "await": "async " + late("a", after="await f()"),
    "name in the scope of others": late(
        "a", after="[1 for a in f]\n(lambda a: 1)(1)\nclass A:\n    a = 1\ndef g(a): ..."
    ),
    "partial": "def view(a):\n    transaction.on_commit(partial(notify.delay, a.id))\n    a = f(a)\n",
    "dict that an outer function has filled": (
        "def outer(a):\n    b = {}\n    b['a'] = a\n    def view():\n        notify.delay(b)\n    return view\n"
    ),
    "name of a function in a loop": (
        "def outer(a):\n    for x in a:\n        def view():\n            b = f'{x}'\n"
        "            transaction.on_commit(lambda: notify.delay(b))\n"
    ),
    "copy of what is changed later": "def view(a):\n    notify.delay(list(a), a.pk, len(a))\n    a.append(1)\n",
    "number that is counted up": "def view(a):\n    b = 0\n    for x in a:\n        notify.delay(b)\n        b += x\n",
    "dict of each turn": view(
        """
        for x in a:
            x['b'] = 1
            b = {}
            b['x'] = x
            notify.delay(b, x)
        """
    ),
    "other attribute that is changed": view("notify.delay(a.lines)\na.other.append(1)\na.lines = []"),
}

# What is left, and what the reason must say.
REBOUND = "`a` may be bound again"
READ = "it reads `a."
CHANGED = "in line"
UNSAFE = {
    # Reading later gives another value of a name.
    **{
        f"name bound by {'; '.join(after.splitlines())}": (late("a", after=after), REBOUND)
        for after in (
            "a = 2",
            "a: int = 2",
            "a += 2",
            "b, (c, *a) = f",
            "for a in f: ...",
            "with f() as a: ...",
            "import a",
            "from x import b as a",
            "import a.b",
            "def a(): ...",
            "class a: ...",
            "del a",
            "if (a := 2): ...",
            "[(a := each) for each in f]",
            "def g(x=(a := 2)): ...",
            "@(a := f)\ndef g(): ...",
            "try: ...\nexcept Exception as a: ...",
            "match f:\n    case a: ...",
            "match f:\n    case [1, *a]: ...",
            "match f:\n    case {'b': 1, **a}: ...",
            "match f:\n    case str() as a: ...",
            "if f:\n    a = 1",
        )
    },
    "name bound by async for": ("async " + late("a", after="async for a in f: ..."), REBOUND),
    "name bound by a nested function": (late("a", before="def g():\n    nonlocal a\n    a = 2", after="g()"), REBOUND),
    "name of the loop": (
        "def view(b):\n    for a in b:\n        transaction.on_commit(lambda: notify.delay(a))\n",
        REBOUND,
    ),
    "name bound in the loop": (
        view(
            """
            while b():
                a = b()
                with b:
                    transaction.on_commit(lambda: notify.delay(a))
            """
        ),
        REBOUND,
    ),
    "name of an exception": (
        view("try: b()\nexcept ValueError as a:\n    transaction.on_commit(lambda: notify.delay(a))"),
        REBOUND,
    ),
    "global name": (
        "a = 1\n" + late("a", signature="f") + "def g():\n    global a\n    a = 2\n",
        REBOUND,
    ),
    "global of this function": ("a = 1\n" + late("a", before="global a", signature="f"), REBOUND),
    "name that an outer function binds again": (
        f"def outer(a, f):\n{indent(late('a', signature=''), '    ')}    view()\n    a = 2\n",
        REBOUND,
    ),
    "name that an outer function binds in a loop": (
        f"def outer(f):\n    for a in f:\n{indent(late('a', signature=''), '        ')}        f(view)\n",
        REBOUND,
    ),
    "name of nobody": (late("a", signature=""), REBOUND),
    "name without a value yet": (late("b", after="b = 1"), "`b` has no value yet"),
    # Reading later gives another value of an attribute.
    "attribute of a parameter": (late("a.status"), READ),
    "key of a parameter": (late("a.pk"), READ),
    "attribute of self": (late("self.a"), "it reads `self.a`"),
    "attribute of what was saved": (late("a.status", before="a.save()"), READ),
    "attribute in a text": (late("f'{a.status}'"), READ),
    "attribute in a sum": (late("1 + a.count"), READ),
    "attribute in a list": (late("[1, a.count]"), READ),
    "attribute of a parameter of the lambda": (
        "def view(a):\n    transaction.on_commit(lambda a=a: notify.delay(a.id))\n    a.save()\n",
        READ,
    ),
    "attribute through another name": (
        late("self.form.instance.pk", before="form = self.form", after="form.save()"),
        "it reads `self.form.instance.pk`",
    ),
    "attribute and yield": (late("a.status", after="yield a"), READ),
    "text of an object": (late("str(a)"), "it reads `a`"),
    "text of an object in a text": (late("f'{a}'"), "it reads `a`"),
    "item": (late("a[0]"), "it reads `a[0]`"),
    "items of a parameter": (late("*a"), "it reads what is in `a`"),
    "named items of a parameter": (late("**a"), "it reads what is in `a`"),
    "items of a parameter in a literal": (late("{**a}, [*a]"), "it reads what is in `a`"),
    "comprehension": (late("[x.id for x in a]"), "it reads `[x.id for x in a]`"),
    "copy": (late("list(a)"), "it calls `list()`"),
    "call": (late("f(a)"), "it calls `f()`"),
    "call of what hides a builtin": (late("str(1)", signature="str"), "it calls `str()`"),
    "walrus": (late("(b := a)"), "`(b := a)` cannot be taken out of the lambda"),
    "task of an object": (
        "class View:\n    task = notify\n    def f(self):\n        transaction.on_commit(lambda: self.task.delay(1))\n",
        "it reads `self.task`",
    ),
    "signature with an attribute": (
        "def view(a):\n    transaction.on_commit(lambda: notify.s(a.status).delay())\n",
        READ,
    ),
    "option with an attribute": (
        "def view(a):\n    transaction.on_commit(lambda: notify.apply_async((1,), countdown=a.delay))\n",
        READ,
    ),
    # The key of a saved object.
    "key before saving": (late("a.pk", before="a = Order()", after="a.save()"), READ),
    "key after saving in a branch": (late("a.pk", before="a = Order()\nif f:\n    a.save()"), READ),
    "key after saving something else": (late("a.pk", before="f().save()\nself.save()\nf()()"), READ),
    "key after saving what had the name": (late("a.pk", before="a.save()\na = Order()"), READ),
    "key after saving or not": (late("a.pk", before="a = Order.objects.get()\nif f:\n    a = Order()"), READ),
    "key after trying to save": (late("a.pk", before="with suppress(ValueError):\n    a.save()"), READ),
    "key of a form that does not commit": (late("a.pk", before="a = f.save(commit=False)"), READ),
    "key of a form that may not commit": (late("a.pk", before="a = f.save(**self)"), READ),
    "key of a form that does not commit itself": (
        late("self.pk", before="super().save(commit=False)"),
        "it reads `self.pk`",
    ),
    "key of what is deleted": (late("a.pk", before="a.save()", after="a.delete()"), READ),
    "key of what is deleted by another name": (late("a.pk", before="a.save()\nb = a", after="b.delete()"), READ),
    "key of what is deleted in a nested function": (
        late("a.pk", before="a.save()\ndef g():\n    a.delete()", after="g()"),
        READ,
    ),
    "key of what is copied": (late("a.pk", before="a.save()", after="a.pk = None\na.save()"), READ),
    "key of what is copied by another name": (
        late("a.pk", before="a.save()\nb = a\nb.id = None", after="b.save()"),
        READ,
    ),
    "key that is set by name": (late("a.pk", before="a.save()", after="setattr(a, f, 1)"), READ),
    "key of what is bound again": (late("a.pk", before="a.save()", after="a = Order()"), READ),
    "key of each": (
        "def view(b):\n    for a in b:\n        a.save()\n        transaction.on_commit(lambda: notify.delay(a.pk))\n",
        READ,
    ),
    "key of what a cache gave": (late("a.id", before="a = cache.get(1)"), READ),
    "key of what is deleted, as a signal tells": (
        "@receiver(post_delete)\n" + late("instance.pk", signature="instance"),
        "it reads `instance.pk`",
    ),
    "key of what is saved or deleted, as a signal tells": (
        "@receiver(post_save)\n" + late("instance.pk", signature="instance") + "post_delete.connect(view)\n",
        "it reads `instance.pk`",
    ),
    # The value of a name is changed in place.
    **{
        f"value changed by {'; '.join(after.splitlines())}": (late("a", after=after), CHANGED)
        for after in (
            "a.append(1)",
            "a[0] = 1",
            "a['b'].append(1)",
            "del a[0]",
            "a.status = 1",
            "f(a)",
            "f([a])",
            "f()(a)",
            "f(*(1, a))",
            "f(x={1: a})",
            "f(*a)",
            "a.save()",
            "b = a\nb.append(1)",
            "self.a = a\nself.g()",
            "b = a or []\nb.append(1)",
            "for each in a: each.clear()",
            "return a",
            "yield a",
            "with a: ...",
            "(lambda: a.append(1))()",
        )
    },
    "value changed by a function above": (late("a", before="def g():\n    a.append(1)", after="g()"), CHANGED),
    "value changed by another name": (late("a", before="a = self.a", after="self.a.append(1)"), CHANGED),
    "value changed by a third name": (late("a", before="b = a\nc = b", after="f(c)"), CHANGED),
    "value changed after another has kept it": (late("a", before="self.a = a", after="self.g()"), CHANGED),
    "value changed after another has kept it in a list": (late("a", before="self.a = [a]", after="self.g()"), CHANGED),
    "value changed after it was given away": (late("a", before="a = []\nself.a = a", after="self.g()"), CHANGED),
    "value put into another that is given away": (late("b", before="b = {'a': a}", after="f(a)"), CHANGED),
    "value put into another": (late("b", before="b = {'a': a}", after="a.append(1)"), CHANGED),
    "items given away": (late("**a", before="a = {}\nf(a)"), CHANGED),
    "value changed in the loop": (
        view("for each in b:\n    a.append(each)\n    transaction.on_commit(lambda: notify.delay(a))"),
        CHANGED,
    ),
    "signature changed": (
        "def view(a):\n    b = notify.s(1)\n    transaction.on_commit(lambda: b.delay())\n    b.set(countdown=1)\n",
        CHANGED,
    ),
    "list of the module": (
        "def view():\n    transaction.on_commit(lambda: notify.delay(LIMITS))\ndef g():\n    f(LIMITS)\n",
        CHANGED,
    ),
    # The same of a call that has its arguments at once: `enqueue` keeps a reference.
    "batch that is emptied": (
        "def view(a):\n    b = []\n    for x in a:\n        b.append(x)\n        notify.delay(b)\n        b.clear()\n",
        "`b` is changed in line",
    ),
    "batch that is filled again": (
        "def view(a):\n    b = {}\n    for x in a:\n        b['x'] = x\n        notify.delay(b)\n",
        "`b` is changed in line",
    ),
    "batch that is bound anew too late": (
        "def view(a):\n    b = []\n    for x in a:\n        notify.delay(b)\n        b.clear()\n        b = []\n",
        "`b` is changed in line",
    ),
    "dict of an outer loop": (
        view("for x in a:\n    b = {}\n    for y in x:\n        b['y'] = y\n        notify.delay(b)"),
        "`b` is changed in line",
    ),
    "list of an object": (
        "def view(a):\n    notify.delay([a.lines])\n    a.lines.append(1)\n",
        "`a.lines` is changed in line",
    ),
    "list of an object by another name": (
        "def view(a):\n    b = a.lines\n    notify.delay(b)\n    a.lines += [1]\n",
        "`a.lines` is changed in line",
    ),
    "list of an object that gets a name afterwards": (
        "def view(a):\n    notify.delay(a.lines)\n    b = a.lines\n    b.clear()\n",
        "`b` is changed in line",
    ),
    "list by an annotated name": (
        "def view(a):\n    b: list = a\n    notify.delay(b)\n    a.clear()\n",
        "`a` is changed in line",
    ),
    "list that gets a name in an expression": (
        view("if b := a.lines:\n    notify.delay(b)\n    a.lines.clear()"),
        "`a.lines` is changed in line",
    ),
    "list by a name of a name of an object": (
        view("b = a.lines\na.old = b\nnotify.delay(a.old)\na.lines.clear()"),
        "`a.lines` is changed in line",
    ),
    "attribute that is set by name": (view("notify.delay(a)\nsetattr(a, b, 1)"), "`a` is changed in line"),
    "list in a partial": (
        "def view(a):\n    transaction.on_commit(partial(notify.delay, a))\n    a.append(1)\n",
        "`a` is changed in line",
    ),
    "list in a called chord": (
        "def view(a):\n    chord(a)(notify.si(1))\n    a.clear()\n",
        "`a` is changed in line",
    ),
    "list in a signature": ("def view(a):\n    notify.s(a).delay()\n    a.append(1)\n", "`a` is changed in line"),
    "list in options": (
        "def view(a):\n    notify.apply_async((1,), headers=a)\n    a['b'] = 1\n",
        "`a` is changed in line",
    ),
    "list of an outer function": (
        "def outer(a):\n    def view():\n        notify.delay(a)\n    view()\n    a.clear()\n",
        "`a` is changed in line",
    ),
    "annotated dict of all that is named": (
        "def view(**a: int):\n    notify.delay(a)\n    a['b'] = 1\n",
        "`a` is changed in line",
    ),
    "list or something else": (view("notify.delay(a or b)\na.append(1)"), "`a` is changed in line"),
    "batch that is not always bound anew": (
        view("for x in a:\n    notify.delay(b)\n    if x: continue\n    b = []\nb.clear()"),
        "`b` is changed in line",
    ),
    "list in a group": ("def view(a):\n    group(notify.s(a)).delay()\n    a.append(1)\n", "`a` is changed in line"),
}


def views(text: str) -> str:
    return f"from celery import chord, group\nfrom functools import partial\n{IMPORTS}\n\n{text}"


@pytest.mark.parametrize("text", SAFE.values(), ids=SAFE)
def test_what_gets_the_same_arguments_is_rewritten(project, text):
    project.write("shop/views.py", views(text))

    answer = project.run("fix", ".")

    assert answer.status == 0, answer.out
    assert project.read() != views(text)
    compile(project.read(), "views.py", "exec")


@pytest.mark.parametrize(("text", "reason"), UNSAFE.values(), ids=UNSAFE)
def test_what_might_get_other_arguments_is_left(project, text, reason):
    project.write("shop/views.py", views(text))

    answer = project.run("fix", ".")

    assert project.read() == views(text)
    assert answer.status == 1
    assert f"()`: {reason}" in answer.out or (reason == CHANGED and reason in answer.out)


# `--read-now`


@pytest.mark.parametrize(
    ("argument", "before", "after"),
    [
        ("a.status", "", "a.status = 1"),
        ("f(a)", "", ""),
        ("f'{a}', *a, **a", "", "f(a)"),
        ("[x.id for x in a]", "", "a.save()"),
        ("a", "", "a = 2"),
    ],
)
def test_read_now_rewrites_what_reads_later(project, argument, before, after):
    text = late(argument, before=before, after=after)
    project.write("shop/views.py", views(text))

    answer = project.run("fix", "--read-now", ".")

    assert answer.status == 0, answer.out
    assert f"    enq(notify, {argument})\n" in project.read()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (late("b", after="b = 1"), "`b` has no value yet"),
        (late("(b := a)"), "`(b := a)` cannot be taken out of the lambda"),
        (late("(yield)"), "`(yield)` cannot be taken out of the lambda"),
        (late("a", after="a.append(1)"), "`a` is changed in line"),
        ("def view(a):\n    transaction.on_commit(lambda b=a: notify.delay(b))\n", "the lambda has parameters"),
        ("def view(a):\n    notify.delay(a)\n    a.append(1)\n", "`a` is changed in line"),
    ],
)
def test_read_now_leaves_what_could_not_be_read(project, text, reason):
    project.write("shop/views.py", views(text))

    answer = project.run("fix", "--read-now", ".")

    assert project.read() == views(text)
    assert f"()`: {reason}" in answer.out
