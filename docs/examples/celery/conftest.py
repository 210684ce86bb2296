import pytest

from shop.app import app

pytest_plugins = ["celery.contrib.pytest"]

app.conf.update(broker_url="memory://", result_backend="cache+memory://")


@pytest.fixture
def celery_app():
    return app


@pytest.fixture
def celery_worker_parameters():
    return {"perform_ping_check": False}
