"""What is done to the shop, what is expected of it, and how reality is found out.

Import this once Django is set up.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
from django.conf import settings

import embedded
from journal.models import EndedScope, SeenIntent, TaskRun
from shop.models import Order, Product
from shop.payments import Card
from shop.warehouse import LARGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from django.db.models import QuerySet

    from embedded import Shop


class Effect(NamedTuple):
    """An effect that was asked for: what became of the intent, and what came of that in the worker."""

    name: str
    outcome: str
    #: How each run of the task ended.
    runs: tuple[str, ...] = ()


class Answer(NamedTuple):
    status: str
    text: str


@dataclass(frozen=True)
class Step:
    title: str
    request: str
    act: Callable[[Shop], Answer]
    status: str
    #: Found in the answer.
    text: str
    effects: list[Effect]


def checkout(button: str = "order", **fields: object) -> Callable[[Shop], Answer]:
    """Fill in the form and press a button."""

    def act(shop: Shop) -> Answer:
        with httpx.Client(base_url=shop.address, trust_env=False, timeout=60, follow_redirects=True) as browser:
            form = browser.get("/checkout/").text
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)[1]
            given = {"product": 1, "quantity": 2, "email": "ada@example.org", "card": Card.GOOD.value, **fields}
            page = browser.post("/checkout/", data={**given, button: "", "csrfmiddlewaretoken": token})
            first = (*page.history, page)[0]
            return Answer(str(first.status_code), page.text)

    return act


def resend(*arguments: str) -> Callable[[Shop], Answer]:
    """Run the management command."""

    def act(shop: Shop) -> Answer:
        command = [sys.executable, "manage.py", "resend_confirmations", *arguments]
        done = subprocess.run(command, cwd=embedded.HERE, capture_output=True, text=True, timeout=60, check=False)
        return Answer(f"exit {done.returncode}", done.stdout + done.stderr)

    return act


def order(outcome: str) -> list[Effect]:
    """The two effects of every order, when none of them comes to happen."""
    return [Effect("send_confirmation", outcome), Effect("notify_warehouse", outcome)]


CONFIRMED = Effect("send_confirmation", "dispatched", ("SUCCESS",))
COUNTED = Effect("↳ update_analytics", "dispatched", ("SUCCESS",))

STEPS = [
    Step(
        "a good order",
        "POST /checkout/",
        checkout(),
        status="302",
        text="ada@example.org",
        effects=[CONFIRMED, Effect("notify_warehouse", "dispatched", ("SUCCESS",)), COUNTED],
    ),
    Step(
        "a large order, for which the warehouse is busy at first",
        "POST /checkout/",
        checkout(quantity=LARGE, email="grace@example.org"),
        status="302",
        text="grace@example.org",
        effects=[
            CONFIRMED,
            Effect("notify_warehouse", "dispatched", ("RETRY", "SUCCESS")),
            # Enqueued by both runs.
            Effect("↳ update_analytics", "discarded: this run did not succeed"),
            COUNTED,
        ],
    ),
    Step(
        "a form that is rejected",
        "POST /checkout/",
        checkout(quantity=0),
        status="400",
        text="greater than or equal to 1",
        effects=[],
    ),
    Step(
        "a card that is declined",
        "POST /checkout/",
        checkout(card=Card.DECLINED.value),
        status="400",
        text="The card was declined for 98.00 €.",
        effects=order("discarded: status 400"),
    ),
    Step(
        "a crash, as the payment provider fails",
        "POST /checkout/",
        checkout(card=Card.BROKEN.value),
        status="500",
        text="Something went wrong",
        effects=order("discarded: status 500"),
    ),
    Step(
        "a preview, for which an order is rolled back",
        "POST /checkout/",
        checkout(button="preview"),
        status="200",
        text="would come to <strong>98.00 €</strong>",
        effects=order("dropped: its transaction was rolled back"),
    ),
    Step(
        "a dry run",
        "manage.py resend_confirmations --dry-run",
        resend("--dry-run", "ada@example.org"),
        status="exit 0",
        text="  send_confirmation(1)\n",
        effects=[Effect("send_confirmation", "dropped: a policy did not let it pass")],
    ),
    Step(
        "the same in earnest",
        "manage.py resend_confirmations",
        resend("ada@example.org"),
        status="exit 0",
        text="Order 1: 2 x Desk lamp\n",
        effects=[CONFIRMED],
    ),
]

# The lines of the table.
HEADLINE = "{:<8}{:<79}{}"
ROW = " " * 8 + "{:<23}{:<42}{}"
RULE = "─" * 98

#: What the world is like when all that was done, and nothing else happened.
WORLD = {
    "orders in the database": 2,
    "e-mails to ada@example.org": 2,
    "e-mails to grace@example.org": 1,
    "packing slips": 2,
    "desk lamps counted as sold": 2 + LARGE,
    "messages left in the queue": 0,
    "task runs that nobody asked for": 0,
    "task runs outside of the worker": 0,
}


def play(shop: Shop) -> bool:
    """Do all steps, print what became of them, and tell whether that is what was expected."""
    done = []
    for step in STEPS:
        print(f"  {step.title} ...")
        known = scopes().count()
        answer = step.act(shop)
        # By the time there is an answer its scope has ended, and only the worker makes others meanwhile.
        done.append((step, answer, [intent for scope in scopes()[known:] for intent in scope.intents.order_by("pk")]))
    come_to_rest(shop)

    complaints = []
    print("\n" + HEADLINE.format("status", "request", "as expected"))
    print(ROW.format("enqueued", "what became of it, and why", "the worker ran"))
    for step, answer, intents in done:
        seen = list(effects(intents))
        wrong = [
            f"{step.title}: {what} should be\n    {expected}\nbut is\n    {found}"
            for what, expected, found, fits in (
                ("the status", step.status, answer.status, answer.status == step.status),
                ("the text", step.text, answer.text, step.text in answer.text),
                ("what happened", step.effects, seen, seen == step.effects),
            )
            if not fits
        ]
        complaints += wrong
        print(RULE)
        print(HEADLINE.format(answer.status, f"{step.request}  {step.title}", "NO" if wrong else "yes"))
        for text, effect in zip(enqueued(intents), seen, strict=True):
            print(ROW.format(text, effect.outcome, ", ".join(effect.runs) or "nothing"))
        if not intents:
            print(ROW.format("nothing", "", "").rstrip())

    print(RULE)
    found = world()
    for thing, expected in WORLD.items():
        fits = found[thing] == expected
        print(HEADLINE.format(found[thing], thing, "yes" if fits else "NO"))
        if not fits:
            complaints.append(f"{thing}: there should be {expected}, but there are {found[thing]}")

    if complaints:
        print(f"\nThe web server:\n{shop.web.log}\nThe worker:\n{shop.worker.log}", *complaints, sep="\n")
    return not complaints


def come_to_rest(shop: Shop, timeout: float = 60) -> None:
    """Wait, for at most `timeout` seconds, until all that was dispatched has run. Then nothing more can happen.

    A run writes down what it enqueued before it ends itself, so nothing that is to come is overlooked.
    """
    ended = TaskRun.objects.filter(state__in=["SUCCESS", "FAILURE"]).values("task_id")
    due = SeenIntent.objects.filter(outcome="dispatched").exclude(intent_id__in=ended)
    deadline = time.monotonic() + timeout
    while due.exists() and shop.worker.is_running and time.monotonic() < deadline:
        time.sleep(0.1)
    # It ends what it has begun, and puts back into the queue what else it has, where `messages_left` finds it.
    shop.worker.finish()


def scopes() -> QuerySet[EndedScope]:
    """The scopes around requests and commands that have ended."""
    return EndedScope.objects.filter(task_id="").order_by("pk")


def effects(intents: Iterable[SeenIntent], indent: str = "") -> Iterator[Effect]:
    """What became of intents, each followed by what its task enqueued itself."""
    for intent in intents:
        runs = (run.state or "did not end" for run in intent.runs())
        yield Effect(f"{indent}{intent.name}", intent.outcome, tuple(runs))
        yield from effects(intent.follow_ups(), "↳ ")


def enqueued(intents: Iterable[SeenIntent], indent: str = "") -> Iterator[str]:
    """The same intents in the same order, as they were enqueued."""
    for intent in intents:
        yield f"{indent}{intent.text}"
        yield from enqueued(intent.follow_ups(), "↳ ")


def world() -> dict[str, int]:
    """What there is now: in the database, in the mailbox, in the queue, and in the worker's record."""
    mail = "".join(file.read_text() for file in Path(settings.EMAIL_FILE_PATH).glob("*"))
    asked_for = SeenIntent.objects.filter(outcome="dispatched").values("intent_id")
    return {
        "orders in the database": Order.objects.count(),
        "e-mails to ada@example.org": mail.count("\nTo: ada@example.org\n"),
        "e-mails to grace@example.org": mail.count("\nTo: grace@example.org\n"),
        "packing slips": Order.objects.exclude(packing_slip="").count(),
        "desk lamps counted as sold": Product.objects.get(name="Desk lamp").sold,
        "messages left in the queue": embedded.messages_left(),
        "task runs that nobody asked for": TaskRun.objects.exclude(task_id__in=asked_for).count(),
        "task runs outside of the worker": TaskRun.objects.exclude(worker=embedded.WORKER).count(),
    }
