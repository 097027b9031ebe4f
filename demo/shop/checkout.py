"""The checkout: what a view of a web shop would call."""

from django.db import transaction

from nats_consumer import publish_on_commit

from . import events
from .models import Order


@transaction.atomic
def place(order: events.OrderCreated) -> None:
    """Write the order and its event in one transaction. The outbox keeps the event as a row, which
    the worker publishes: an order without its event, or an event without its order, cannot be."""
    Order.objects.create(number=order.number, customer=order.customer, total=order.total)
    publish_on_commit(order, msg_id=events.msg_id(order))
