"""Waiting for a condition, with a bound: what tests do instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

PAUSE = 0.01


def eventually(
    condition: Callable[[], Value | None],
    timeout: float = 10,
    explain: Callable[[], object] = lambda: "",
) -> Value:
    """Call `condition` until it returns something true, and return that.

    After `timeout` seconds it fails, with the last value and what `explain` returns.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {value!r} after {timeout:g} s {explain()}")
        time.sleep(PAUSE)
    return value
