import structlog
from django.http import HttpRequest, JsonResponse
from django.urls import path

import airlock
from tenancy.celery import ship


def order(request: HttpRequest, parcels: int) -> JsonResponse:
    told = {"request_id": structlog.contextvars.get_contextvars()["request_id"], "ids": []}
    for parcel in range(parcels):
        with structlog.contextvars.bound_contextvars(parcel=parcel):
            told["ids"].append(airlock.enqueue(ship).id)
    structlog.contextvars.bind_contextvars(request_id="of another request")
    return JsonResponse(told)


urlpatterns = [path("order/<int:parcels>", order)]
