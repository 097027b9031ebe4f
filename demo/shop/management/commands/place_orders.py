"""`manage.py place_orders [--count N]`: give the consumers something to do."""

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db.models import Max

from shop.customers import place_orders
from shop.models import Order


class Command(BaseCommand):
    """Places orders, numbered from the first free number."""

    help = "Place orders. Run `manage.py nats_consumer --setup` first, in another terminal."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """--count"""
        parser.add_argument("--count", type=int, default=100, help="how many (default: 100)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the orders with their events; the worker publishes them."""
        last = Order.objects.aggregate(last=Max("number"))["last"] or 0
        asyncio.run(place_orders(options["count"], first=last + 1))
        self.stdout.write(f"{options['count']} orders are placed.")
