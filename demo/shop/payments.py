"""A payment provider, or rather its sandbox: like real ones, it has test cards that fail."""

import asyncio

from .events import OrderCreated

GOOD_CARD = "4242 4242 4242 4242"
CARD_THAT_FAILS_ONCE = "4000 0000 0000 0001"
CARD_THAT_FAILS_TWICE = "4000 0000 0000 0002"
STOLEN_CARD = "4000 0000 0000 9979"

_NETWORK_SECONDS = 0.005
_FAILURES = {CARD_THAT_FAILS_ONCE: 1, CARD_THAT_FAILS_TWICE: 2}


class PaymentFailed(Exception):
    """The provider did not take the money."""


async def charge(order: OrderCreated, attempt: int) -> None:
    """Charge the order's card; test cards fail the first time, the first two times, or always.

    A real provider takes an idempotency key with each charge, so that a repeat costs nothing: the
    number of the order is one.
    """
    await asyncio.sleep(_NETWORK_SECONDS)
    if order.card == STOLEN_CARD:
        raise PaymentFailed("card reported stolen")
    if attempt <= _FAILURES.get(order.card, 0):
        raise PaymentFailed("bank did not answer")
