"""The shop's pages, and that of the journal."""

from django.urls import include, path

from journal import views

urlpatterns = [
    path("", include("shop.urls")),
    path("journal/", views.journal, name="journal"),
]
