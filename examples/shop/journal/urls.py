"""The journal's pages, and the shop's."""

from django.conf import settings
from django.urls import include, path

from journal import views

urlpatterns = [
    path("", views.story, name="story"),
    path("journal/<int:pk>/", views.journal, name="journal"),
    path("journal/order/<int:pk>/", views.journal_of_order, name="journal_of_order"),
    path("", include("shop.urls")),
]

if settings.DEBUG:  # with the toolbar
    from debug_toolbar.toolbar import debug_toolbar_urls
    from django.contrib.staticfiles.urls import staticfiles_urlpatterns

    urlpatterns += [*debug_toolbar_urls(), *staticfiles_urlpatterns()]
