"""Customers, who place orders."""

import asyncio
from decimal import Decimal

from asgiref.sync import sync_to_async

from . import payments
from .checkout import place
from .events import OrderCreated

_NAMES = ["Ada", "Blaise", "Carl", "Dorothy", "Emmy", "Fibonacci", "Grace", "Hypatia"]
_AT_ONCE = 50


async def place_orders(count: int, first: int = 1, pause: float = 0.0) -> None:
    """Place `count` orders, the first with the number `first`. After each fifty there is a pause of
    this number of seconds."""
    numbers = range(first, first + count)
    for start in range(0, count, _AT_ONCE):
        for number in numbers[start : start + _AT_ONCE]:
            await sync_to_async(place)(order(number, numbers))
        await asyncio.sleep(pause)


def order(number: int, numbers: range) -> OrderCreated:
    """The order with this number, one of `numbers`; it always looks the same."""
    return OrderCreated(
        number=number,
        customer=_NAMES[number % len(_NAMES)],
        total=Decimal(f"{number % 90 + 10}.90"),
        card=card(number, numbers),
    )


def card(number: int, numbers: range) -> str:
    """Most cards are good; some fail once or twice, and the one in the middle is stolen."""
    if number == numbers[len(numbers) // 2]:
        return payments.STOLEN_CARD
    if number % 100 == 0:
        return payments.CARD_THAT_FAILS_TWICE
    if number % 40 == 0:
        return payments.CARD_THAT_FAILS_ONCE
    return payments.GOOD_CARD
