"""Customers, who place orders."""

import asyncio
from typing import Any

from . import events, payments

_NAMES = ["Ada", "Blaise", "Carl", "Dorothy", "Emmy", "Fibonacci", "Grace", "Hypatia"]
_AT_ONCE = 50


async def place_orders(count: int, first: int = 1, pause: float = 0.0) -> None:
    """Publish orders.created for `count` orders, the first with the number `first`: fifty at once,
    then a pause of so many seconds."""
    numbers = range(first, first + count)
    for start in range(0, count, _AT_ONCE):
        batch = numbers[start : start + _AT_ONCE]
        await asyncio.gather(
            *(events.publish(events.CREATED, order(number, numbers)) for number in batch)
        )
        await asyncio.sleep(pause)


def order(number: int, numbers: range) -> dict[str, Any]:
    """The order with this number, one of `numbers`; it always looks the same."""
    return {
        "number": number,
        "customer": _NAMES[number % len(_NAMES)],
        "total": f"{number % 90 + 10}.90",
        "card": card(number, numbers),
    }


def card(number: int, numbers: range) -> str:
    """Most cards are good; some fail once or twice, and the one in the middle is stolen."""
    if number == numbers[len(numbers) // 2]:
        return payments.STOLEN_CARD
    if number % 100 == 0:
        return payments.CARD_THAT_FAILS_TWICE
    if number % 40 == 0:
        return payments.CARD_THAT_FAILS_ONCE
    return payments.GOOD_CARD
