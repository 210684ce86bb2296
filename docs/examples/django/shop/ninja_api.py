import airlock
from django.urls import path
from ninja import NinjaAPI
from ninja.errors import HttpError

from shop.views import place_order

api = NinjaAPI()


@api.post("checkout/")
@airlock.scoped  # below the route
def checkout(request, email: str, card: str):
    order = place_order(email)
    if card == "declined":
        raise HttpError(402, "Your card was declined.")
    return {"order": order.pk}


urlpatterns = [path("", api.urls)]
