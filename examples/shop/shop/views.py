from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from shop import services
from shop.forms import CheckoutForm
from shop.models import Order, Product
from shop.payments import DeclinedError


def checkout(request: HttpRequest) -> HttpResponse:
    if request.method != "POST":
        return render(request, "shop/checkout.html", {"form": CheckoutForm()})

    form = CheckoutForm(request.POST)
    if not form.is_valid():
        return render(request, "shop/checkout.html", {"form": form}, status=400)

    details = form.cleaned_data
    card = details.pop("card")
    if "preview" in request.POST:
        return render(request, "shop/checkout.html", {"form": form, "preview": services.preview_order(**details)})
    try:
        services.place_order(card=card, **details)
    except DeclinedError as error:
        form.add_error("card", str(error))
        return render(request, "shop/checkout.html", {"form": form}, status=400)
    return redirect("orders")


def orders(request: HttpRequest) -> HttpResponse:
    orders = Order.objects.select_related("product").order_by("-pk")
    waiting = any(order.confirmed_at is None or not order.packing_slip for order in orders)
    products = Product.objects.order_by("pk")
    return render(request, "shop/orders.html", {"orders": orders, "products": products, "waiting": waiting})
