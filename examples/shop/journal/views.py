from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from journal.models import EndedScope


def journal(request: HttpRequest) -> HttpResponse:
    return render(request, "journal/journal.html", {"scopes": EndedScope.objects.order_by("-pk")[:50]})
