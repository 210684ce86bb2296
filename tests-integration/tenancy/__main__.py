"""The programs of the project: `python -m tenancy PROGRAM [ARGUMENT]...` prints what came of it in its last line."""

from __future__ import annotations

import json
import sys
from typing import Any

import django
from django.db import connection
from django.test import Client
from django_tenants.utils import get_tenant_domain_model, get_tenant_model, schema_context

import airlock
from tenancy.celery import pack, ship


def migrate(*schemas: str) -> None:
    tenants, domains = get_tenant_model(), get_tenant_domain_model()
    with connection.schema_editor() as editor:
        editor.create_model(tenants)
        editor.create_model(domains)
    for schema in schemas:
        tenant = tenants.objects.create(schema_name=schema)
        domains.objects.create(domain=f"{schema}.testserver", tenant=tenant)


def order(parcels: str, host: str = "testserver") -> Any:
    return Client().get(f"/order/{parcels}", headers={"host": host}).json()


def enqueue_in_schemas(*schemas: str) -> list[str]:
    ids = []
    with airlock.scope():
        for schema in schemas:
            with schema_context(schema):
                ids.append(airlock.enqueue(ship).id)
    return ids


def enqueue_scoped_in_schema(schema: str) -> str:
    with airlock.scope(), schema_context(schema):
        return airlock.enqueue(pack).id


django.setup()
program, *arguments = sys.argv[1:]
(chosen,) = [
    each for each in (migrate, order, enqueue_in_schemas, enqueue_scoped_in_schema) if each.__name__ == program
]
sys.stdout.write(json.dumps(chosen(*arguments)))
