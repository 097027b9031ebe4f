"""The shop's events: JSON on the subjects `orders.<what happened>`."""

import json
from typing import Any

from nats_consumer import apublish

STREAM = "orders"
CREATED = "orders.created"
PAID = "orders.paid"
SHIPPED = "orders.shipped"


async def publish(subject: str, order: dict[str, Any]) -> None:
    """Store the event in the stream. The message id makes it safe to do again: a handler that is
    called twice for one message publishes one event, if both are within the stream's
    duplicate_window (two minutes unless CreateStream says otherwise). After that it is a second
    event, which changes nothing either: handlers say what shall be."""
    await apublish(subject, order, msg_id=f"{subject}.{order['number']}")


def order_in(message: Any) -> dict[str, Any]:
    """The order that an event carries."""
    return json.loads(message.data)
