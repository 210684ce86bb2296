"""Settings as the guides of django-tenants and django-structlog have them, and the carrier of the tenant."""

import json
import os

USE_TZ = True
SECRET_KEY = "of a test"
ALLOWED_HOSTS = [".testserver"]
ROOT_URLCONF = "tenancy.urls"

DATABASES = {"default": json.loads(os.environ["AIRLOCK_TEST_DATABASE"])}
DATABASES["default"]["ENGINE"] = "django_tenants.postgresql_backend"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
SHARED_APPS = ["django_tenants", "tenancy", "django_structlog", "airlock.integrations.django"]
TENANT_APPS = ["django.contrib.contenttypes"]
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]
TENANT_MODEL = "tenancy.Tenant"
TENANT_DOMAIN_MODEL = "tenancy.Domain"

DJANGO_STRUCTLOG_CELERY_ENABLED = True
MIDDLEWARE = json.loads(os.environ["AIRLOCK_TEST_MIDDLEWARE"])

AIRLOCK = {"CARRIERS": ["tenancy.carriers.same_schema"]}
