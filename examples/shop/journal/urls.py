"""The journal's pages, and the shop's."""

from django.urls import include, path

from journal import views

urlpatterns = [
    path("", views.story, name="story"),
    path("journal/<int:pk>/", views.journal, name="journal"),
    path("journal/order/<int:pk>/", views.journal_of_order, name="journal_of_order"),
    path("", include("shop.urls")),
]
