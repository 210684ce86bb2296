"""Confirm orders once more, by their numbers."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

import airlock
from airlock.integrations.django import airlock_command
from ordering.celery import confirm


class Command(BaseCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("numbers", nargs="+")

    @airlock_command
    def handle(self, *, numbers: list[str], **_: Any) -> None:
        for number in numbers:
            airlock.enqueue(confirm, number=number)
