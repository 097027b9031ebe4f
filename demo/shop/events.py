"""The shop's events: each class is the payload of one subject, and is published as JSON."""

from dataclasses import dataclass
from decimal import Decimal

from nats_consumer import event

STREAM = "orders"
CREATED = "orders.created"
PAID = "orders.paid"
SHIPPED = "orders.shipped"


@event(CREATED)
@dataclass(frozen=True)
class OrderCreated:
    """A customer has placed an order."""

    number: int
    customer: str
    total: Decimal
    card: str


@event(PAID)
@dataclass(frozen=True)
class OrderPaid:
    """The card of an order was charged."""

    number: int


@event(SHIPPED)
@dataclass(frozen=True)
class OrderShipped:
    """The warehouse has sent an order."""

    number: int


def msg_id(order: OrderCreated | OrderPaid | OrderShipped) -> str:
    """Return the message id of an event. The stream stores one message with it: a handler that is
    called twice for one message publishes one event, if both are within the stream's
    duplicate_window (two minutes unless CreateStream says otherwise)."""
    return f"{type(order).__name__}.{order.number}"
