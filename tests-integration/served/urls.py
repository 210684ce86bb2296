from django.urls import include, path

urlpatterns = [
    path(f"{module}/", include(f"served.{module}")) for module in ("crowd", "streams", "coroutines", "transactions")
]
