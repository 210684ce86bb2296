import airlock
from django.urls import path
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response
from rest_framework.views import APIView

from shop.views import place_order


class Checkout(APIView):
    @airlock.scoped
    def post(self, request):
        order = place_order(request.data["email"])
        if request.data["card"] == "declined":
            raise ValidationError("Your card was declined.")
        return Response({"order": order.pk}, status=201)


urlpatterns = [path("checkout/", Checkout.as_view())]
