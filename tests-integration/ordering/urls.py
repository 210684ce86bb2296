from django.urls import path

from ordering import coroutines, streams, views

urlpatterns = [
    path("sync/<ending>/<number>", views.sync_view),
    path("non-atomic/<ending>/<number>", views.non_atomic_view),
    path("async/<ending>/<number>", views.async_view),
    path("event-loop/<int:status>/<number>", views.enqueues_in_the_event_loop),
    path("celery/<number>", views.sends_celery_tasks),
    *(path(f"streams/{name}/<number>", view) for name, view in streams.VIEWS.items()),
    *(path(f"coroutines/{view.__name__}/<number>", view) for view in coroutines.VIEWS),
]
