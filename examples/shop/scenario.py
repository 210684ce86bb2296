"""The orders of the demo, what should become of each, and a comparison with what did.

Set up Django before you import this.
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
from airlock.integrations.outbox.models import Entry
from django.conf import settings

import embedded
from journal.models import SENT, EndedScope, RecordedIntent, TaskRun
from shop.models import Order, Product
from shop.payments import Card
from shop.warehouse import LARGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedded import Shop


class Effect(NamedTuple):
    """What became of one intent."""

    #: The name of the task, after an arrow if another task enqueued it.
    name: str
    #: The outcome, and why.
    outcome: str
    #: How each run of the task ended.
    runs: tuple[str, ...] = ()


class Answer(NamedTuple):
    status: str
    text: str


@dataclass(frozen=True)
class Step:
    """One order, and what should become of it."""

    title: str
    request: str
    act: Callable[[Shop], Answer]
    status: str
    #: Part of the answer.
    text: str
    effects: list[Effect]


class Done(NamedTuple):
    """A step that was done."""

    step: Step
    answer: Answer
    #: What the journal has about it: one scope, if all is well.
    scopes: list[EndedScope]


def fill_in(address: str, button: str = "order", **fields: object) -> Answer:
    """Fill in the checkout form of a web server and press a button."""
    with httpx.Client(base_url=address, trust_env=False, timeout=60, follow_redirects=True) as browser:
        form = browser.get("/checkout/").text
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)[1]
        given = {"product": 1, "quantity": 2, "email": "ada@example.org", "card": Card.GOOD.value, **fields}
        try:
            page = browser.post("/checkout/", data={**given, button: "", "csrfmiddlewaretoken": token})
        except httpx.RemoteProtocolError as error:
            return Answer("none", str(error))
        first = (*page.history, page)[0]
        return Answer(str(first.status_code), page.text)


def checkout(button: str = "order", **fields: object) -> Callable[[Shop], Answer]:
    """Order from the shop."""
    return lambda shop: fill_in(shop.address, button, **fields)


def checkout_at_dying_server(shop: Shop) -> Answer:
    """Order from a web server that is killed right after the commit."""
    return fill_in(shop.open_another(SHOP_KILLED_AFTER_COMMIT="1"), email="alan@example.org")


def checkout_without_broker(shop: Shop) -> Answer:
    """Order while the broker is stopped, and start it again."""
    wait_for_worker(shop)  # what is left in this broker goes with it
    shop.broker_server.finish()
    try:
        return fill_in(shop.address, email="mary@example.org")
    finally:
        shop.broker_server.start()


def resend(*arguments: str) -> Callable[[Shop], Answer]:
    """Run the management command."""

    def act(shop: Shop) -> Answer:
        command = [sys.executable, "manage.py", "resend_confirmations", *arguments]
        done = subprocess.run(command, cwd=embedded.HERE, capture_output=True, text=True, timeout=60, check=False)
        return Answer(f"exit {done.returncode}", done.stdout + done.stderr)

    return act


def nothing_sent(outcome: str) -> list[Effect]:
    """The two effects of an order, neither of which was dispatched."""
    return [Effect("send_confirmation", outcome), Effect("notify_warehouse", outcome)]


ORDERED = "dispatched (status 302, committed)"
#: For the relay, which has the worker run both tasks of an order.
LEFT = "in the outbox (status 302, committed)"
COUNTED = Effect("↳ update_analytics", "dispatched (the run succeeded)", ("SUCCESS",))

STEPS = [
    Step(
        "a good order",
        "POST /checkout/",
        checkout(),
        status="302",
        text="ada@example.org",
        effects=[
            Effect("send_confirmation", ORDERED, ("SUCCESS",)),
            Effect("notify_warehouse", ORDERED, ("SUCCESS",)),
            COUNTED,
        ],
    ),
    Step(
        "a large order: the warehouse is busy at first",
        "POST /checkout/",
        checkout(quantity=LARGE, email="grace@example.org"),
        status="302",
        text="grace@example.org",
        effects=[
            Effect("send_confirmation", ORDERED, ("SUCCESS",)),
            Effect("notify_warehouse", ORDERED, ("RETRY", "SUCCESS")),
            # Both runs enqueued it.
            Effect("↳ update_analytics", "discarded (the run did not succeed)"),
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
        effects=nothing_sent("discarded (status 400)"),
    ),
    Step(
        "a crash: the payment provider fails",
        "POST /checkout/",
        checkout(card=Card.BROKEN.value),
        status="500",
        text="Something went wrong",
        effects=nothing_sent("discarded (status 500)"),
    ),
    Step(
        "a preview: the order is rolled back",
        "POST /checkout/",
        checkout(button="preview"),
        status="200",
        text="would come to <strong>98.00 €</strong>",
        effects=nothing_sent("rolled back (with the transaction on 'default')"),
    ),
    Step(
        "a command, as a dry run",
        "manage.py resend_confirmations --dry-run",
        resend("--dry-run", "ada@example.org"),
        status="exit 0",
        text="  send_confirmation(1)\n",
        effects=[Effect("send_confirmation", "dropped (by a dry run)")],
    ),
    Step(
        "the same command, for real",
        "manage.py resend_confirmations",
        resend("ada@example.org"),
        status="exit 0",
        text="Order 1: 2 x Desk lamp\n",
        effects=[Effect("send_confirmation", "dispatched (the command succeeded)", ("SUCCESS",))],
    ),
    Step(
        "the server is killed between COMMIT and publish",
        "POST /checkout/",
        checkout_at_dying_server,
        status="none",
        text="disconnected",
        effects=[
            Effect("send_confirmation", LEFT, ("SUCCESS",)),
            Effect("notify_warehouse", LEFT, ("SUCCESS",)),
            COUNTED,
        ],
    ),
]
#: Only where the broker is ours to stop.
OUTAGE = Step(
    "the broker is stopped, and started after the order",
    "POST /checkout/",
    checkout_without_broker,
    status="302",
    text="mary@example.org",
    effects=[
        Effect("send_confirmation", LEFT, ("SUCCESS",)),
        Effect("notify_warehouse", LEFT, ("SUCCESS",)),
        COUNTED,
    ],
)

# The lines of the printed table.
HEADLINE = "{:<8}{:<85}{}"
ROW = " " * 8 + "{:<23}{:<48}{}"
RULE = "─" * 104


def expected_world(shop: Shop) -> dict[str, int]:
    """What there should be at the end."""
    outage = 1 if shop.broker_server else 0
    return {
        "orders in the database": 3 + outage,
        "e-mails to ada@example.org": 2,
        "e-mails to grace@example.org": 1,
        "e-mails to alan@example.org": 1,
        "e-mails to mary@example.org": outage,
        "packing slips": 3 + outage,
        "desk lamps counted as sold": 4 + LARGE + 2 * outage,
        "entries left in the outbox": 0,
        "messages left in the queue": 0,
        "task runs that nobody asked for": 0,
        "task runs outside of the worker": 0,
    }


def play(shop: Shop) -> list[Done]:
    """Do all steps, and label them in the journal."""
    done = []
    for step in [*STEPS, OUTAGE] if shop.broker_server else STEPS:
        print(f"  {step.title} ...")
        answer = step.act(shop)
        # Its scope has ended by now. What the worker runs meanwhile has a task id.
        new = EndedScope.objects.filter(task_id="", label="")
        done.append(Done(step, answer, list(new)))
        new.update(label=step.title)
    return done


def compare(shop: Shop, done: list[Done]) -> bool:
    """Print what became of each step, and say whether all of it is as expected. The worker is stopped for this."""
    wait_for_worker(shop)
    # It finishes its tasks and puts back all other messages, for `messages_left` to count.
    shop.worker.finish()
    wrong = []

    print("\n" + HEADLINE.format("status", "request", "as expected"))
    print(ROW.format("enqueued", "what became of it (and why)", "the worker ran"))
    for step, answer, scopes in done:
        intents = [intent for scope in scopes for intent in scope.all_intents()]
        effects = [effect(intent) for intent in intents]
        fits = answer.status == step.status and step.text in answer.text and effects == step.effects
        if not fits:
            wanted, found = (step.status, step.text, step.effects), (*answer, effects)
            wrong.append(f"{step.title}: expected\n    {wanted}\nbut found\n    {found}")
        print(RULE)
        print(HEADLINE.format(answer.status, f"{step.request}  {step.title}", "yes" if fits else "NO"))
        for intent, (_, outcome, runs) in zip(intents, effects, strict=True):
            print(ROW.format(arrow(intent) + intent.text, outcome, ", ".join(runs) or "nothing"))
        if not intents:
            print(ROW.format("nothing", "", "").rstrip())

    print(RULE)
    expected = expected_world(shop)
    for thing, found in world().items():
        fits = found == expected[thing]
        if not fits:
            wrong.append(f"{thing}: expected {expected[thing]}, but found {found}")
        print(HEADLINE.format(found, thing, "yes" if fits else "NO"))

    if wrong:
        logs = {"The web server": shop.web.log, "The worker": shop.worker.log, "The relay": shop.relay.log}
        print(*(f"\n{program}:\n{log}" for program, log in logs.items()), *wrong, sep="\n")
    return not wrong


def wait_for_worker(shop: Shop, timeout: float = 60) -> None:
    """Wait until the worker has run everything that was dispatched, for at most `timeout` seconds.

    Nothing can be missed: a run records what it enqueued before it ends.
    """
    deadline = time.monotonic() + timeout
    while (is_work_left() or Entry.objects.exists()) and shop.worker.is_running and time.monotonic() < deadline:
        time.sleep(0.1)


def is_work_left() -> bool:
    return any(intent.is_waiting() for intent in RecordedIntent.objects.filter(outcome__in=SENT))


def arrow(intent: RecordedIntent) -> str:
    return "↳ " if intent.is_follow_up else ""


def effect(intent: RecordedIntent) -> Effect:
    return Effect(arrow(intent) + intent.name, f"{intent.outcome} ({intent.why})", tuple(intent.runs()))


def world() -> dict[str, int]:
    """What there is now, counted in the database, the mailbox, the queue, and the record of task runs."""
    mail = "".join(file.read_text() for file in Path(settings.EMAIL_FILE_PATH).glob("*"))
    asked_for = RecordedIntent.objects.filter(outcome__in=SENT).values("intent_id")
    return {
        "orders in the database": Order.objects.count(),
        "e-mails to ada@example.org": mail.count("\nTo: ada@example.org\n"),
        "e-mails to grace@example.org": mail.count("\nTo: grace@example.org\n"),
        "e-mails to alan@example.org": mail.count("\nTo: alan@example.org\n"),
        "e-mails to mary@example.org": mail.count("\nTo: mary@example.org\n"),
        "packing slips": Order.objects.exclude(packing_slip="").count(),
        "desk lamps counted as sold": Product.objects.get(name="Desk lamp").sold,
        "entries left in the outbox": Entry.objects.count(),
        "messages left in the queue": embedded.messages_left(),
        "task runs that nobody asked for": TaskRun.objects.exclude(task_id__in=asked_for).count(),
        "task runs outside of the worker": TaskRun.objects.exclude(worker=embedded.WORKER).count(),
    }
