"""Waiting for a condition, with a bound: what tests do instead of sleeping."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

PAUSE = 0.01


def eventually(
    condition: Callable[[], Value | None],
    timeout: float = 30,
    explain: Callable[[], object] = lambda: "",
) -> Value:
    """Call `condition` until it returns something true, and return that.

    After `timeout` seconds it fails, with the last value and what `explain` returns.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        _check(deadline, timeout, value, explain)
        time.sleep(PAUSE)
    return value


async def becomes_true(
    condition: Callable[[], Value | None],
    within: float = 30,
    explain: Callable[[], object] = lambda: "",
) -> Value:
    """Do the same as `eventually`, within this number of seconds, while the event loop goes on."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        _check(deadline, within, value, explain)
        await asyncio.sleep(PAUSE)
    return value


def _check(deadline: float, timeout: float, value: object, explain: Callable[[], object]) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"still {value!r} after {timeout:g} s {explain()}")
