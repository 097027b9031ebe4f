"""The shop's events: JSON on the subjects `orders.<what happened>`."""

import asyncio
import json
from typing import Any

from nats_consumer import get_nats_client
from nats_consumer.client import Client

STREAM = "orders"
CREATED = "orders.created"
PAID = "orders.paid"
SHIPPED = "orders.shipped"

_connecting = asyncio.Lock()
_client: Client | None = None


async def publish(subject: str, order: dict[str, Any]) -> None:
    """Store the event in the stream. The message id makes it safe to do again: a handler that is
    called twice for one message publishes one event, if both are within the stream's
    duplicate_window (two minutes unless CreateStream says otherwise). After that it is a second
    event, which changes nothing either: handlers say what shall be."""
    client = await _shared_client()
    await client.jetstream().publish(
        subject,
        json.dumps(order).encode(),
        headers={"Nats-Msg-Id": f"{subject}.{order['number']}"},
    )


def order_in(message: Any) -> dict[str, Any]:
    """The order that an event carries."""
    return json.loads(message.data)


async def _shared_client() -> Client:
    """One connection for all that this process publishes, opened by the first."""
    global _client
    async with _connecting:
        if _client is None or _client.is_closed:
            _client = await get_nats_client()
    return _client
