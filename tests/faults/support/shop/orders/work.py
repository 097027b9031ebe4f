"""Orders for a handler: to take time, to fail, or to harm the process."""

import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path
from threading import Lock
from typing import Any

from nats_consumer import DeadLetter

CHUNK = 16 * 2**20
CHUNKS = 8
# The limit is the process's, and its handlers are many.
ONE_AT_A_TIME = Lock()


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
        case "depend" if (Path(os.environ["FAULTS_FOLDER"]) / "down").exists():
            raise ConnectionError("what the order depends on is down")
        case "leave":
            sys.exit("the order asks for it")
        case "use up the memory":
            with ONE_AT_A_TIME:
                _use_up_the_memory()
        case "hold the GIL":
            ctypes.PyDLL(None).sleep(order["holds"])
        case "spin":
            _spin(order["holds"])
        case "exit":
            os._exit(9)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)


def _use_up_the_memory() -> None:
    """As in a container that has no more: a MemoryError, and hardly anything left beside it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + CHUNKS * CHUNK, limits[1])
    )
    try:
        _ = [bytearray(CHUNK) for _ in range(2 * CHUNKS)]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _spin(duration: float) -> None:
    end = time.monotonic() + duration
    while time.monotonic() < end:
        pass
