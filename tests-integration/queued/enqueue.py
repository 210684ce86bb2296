"""Enqueue a job in a transaction, and print its id, and how many are left in the outbox.

A number has one with so many characters come before it.
"""

import sys

import django
from django.core.management import call_command
from django.db import transaction
from django.utils.module_loading import import_string

import airlock

django.setup()
call_command("migrate", verbosity=0)

from airlock.integrations.outbox import status  # noqa: E402 - it has models

with airlock.scope(), transaction.atomic():
    for size in map(int, sys.argv[2:]):
        airlock.enqueue(import_string(sys.argv[1]), "x" * size)
    intent = airlock.enqueue(import_string(sys.argv[1]), "hello", urgent=True)
sys.stdout.write(f"{intent.id} {status().total}")
