from django.urls import path
from django.views.generic import RedirectView

from shop import views

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="checkout")),
    path("checkout/", views.checkout, name="checkout"),
    path("orders/", views.orders, name="orders"),
]
