from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from journal.delay import compare
from journal.models import EndedScope, Outcome, RecordedIntent


def story(request: HttpRequest) -> HttpResponse:
    scopes = EndedScope.objects.filter(task_id="")
    yours = [story_of(scope) for scope in scopes.filter(label="").order_by("-pk")[:20]]
    ours = [story_of(scope) for scope in scopes.exclude(label="").order_by("pk")]
    waiting = any(story["waiting"] for story in yours + ours)
    return render(request, "journal/story.html", {"yours": yours, "ours": ours, "waiting": waiting})


def journal(request: HttpRequest, pk: int) -> HttpResponse:
    story = story_of(get_object_or_404(EndedScope, pk=pk, task_id=""))
    effects = [(intent, compare([intent])) for intent in story["intents"]]
    return render(request, "journal/journal.html", {**story, "effects": effects})


def journal_of_order(request: HttpRequest, pk: int) -> HttpResponse:
    """The journal of the request that placed an order."""
    intents = RecordedIntent.objects.filter(text=f"notify_warehouse({pk})")
    # SQLite gives the number of an order that was rolled back to the next one.
    intents = intents.exclude(outcome__in=[Outcome.DISCARDED, Outcome.ROLLED_BACK])
    return redirect("journal", get_object_or_404(intents).scope_id)


def story_of(scope: EndedScope) -> dict[str, Any]:
    intents = scope.all_intents()
    return {
        "scope": scope,
        "intents": intents,
        "delay": compare(intents),
        "waiting": any(intent.is_waiting() for intent in intents),
    }
