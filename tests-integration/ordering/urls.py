from django.urls import path

from ordering import views

urlpatterns = [
    path("sync/<ending>/<number>", views.sync_view),
    path("non-atomic/<ending>/<number>", views.non_atomic_view),
    path("async/<ending>/<number>", views.async_view),
    path("rolls-back-the-request/<number>", views.rolls_back_the_request),
    path("event-loop/<int:status>/<number>", views.enqueues_in_the_event_loop),
    path("several/<number>", views.several),
    path("slow-to-publish/<number>", views.slow_to_publish),
    path("lets-go-on", views.lets_go_on),
]
