"""What an order asks of its handler: to take time, to fail, or to harm the process."""

import ctypes
import os
import time
from typing import Any

from nats_consumer import DeadLetter


class AttemptError(Exception):
    """The order asked for a failed attempt."""


def seconds(order: dict[str, Any]) -> float:
    """How long the handler waits in the ordinary way, letting others run."""
    return float(order.get("seconds", 0))


def harm(order: dict[str, Any], attempt: int) -> None:
    """Do the harm the order asks for, if any."""
    match order.get("do"):
        case "fail" if attempt <= order["attempts"]:
            raise AttemptError(f"attempt {attempt} of {order['id']}")
        case "give up":
            raise DeadLetter("the order asks for it")
        case "hold the GIL":
            ctypes.PyDLL(None).sleep(order["holds"])
        case "spin":
            _spin(order["holds"])
        case "exit":
            os._exit(9)
        case "segfault":
            ctypes.string_at(0)


def _spin(duration: float) -> None:
    end = time.monotonic() + duration
    while time.monotonic() < end:
        pass
