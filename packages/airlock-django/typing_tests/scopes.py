"""What an editor knows of scopes and requests in a Django project."""

from typing import assert_type

from django.core.management.base import BaseCommand
from django.http import HttpRequest, HttpResponse

import airlock
from airlock.integrations.django import AirlockMiddleware, AirlockRequest, DjangoScope, airlock_command


def view(request: AirlockRequest) -> HttpResponse:
    assert_type(request.airlock_scope, airlock.Scope)
    assert_type(request.airlock_scope.rolled_back_intents, list[airlock.Intent])
    assert_type(request.method, str | None)
    return HttpResponse(status=409 if request.airlock_scope.undispatched_intents else 200)


def without_scope(request: HttpRequest) -> None:
    request.airlock_scope  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018


with airlock.scope(_cls=DjangoScope) as scope:
    assert_type(scope, DjangoScope)

assert_type(DjangoScope(airlock.AllowAll(), executor=print).rolled_back_intents, list[airlock.Intent])


class OnlyPosts(AirlockMiddleware):
    def should_flush(self, request: HttpRequest, response: object) -> bool:
        return request.method == "POST"


class Command(BaseCommand):
    @airlock_command
    def handle(self, *args: object, **options: object) -> None:
        airlock.enqueue(print, "done")
