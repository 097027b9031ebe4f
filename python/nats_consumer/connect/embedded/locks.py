"""File locks of the embedded server's store."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from .state import POLL_INTERVAL, not_started

try:
    import fcntl
except ImportError:  # Windows: `server_url` raises ConfigurationError there
    fcntl = None  # type: ignore[assignment]

SUPPORTED = fcntl is not None


def open_lock(path: Path) -> int:
    """A descriptor of the lock file, made if it is missing."""
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def try_exclusive(descriptor: int) -> bool:
    """Take the lock alone, if nobody holds it."""
    return _try_lock(descriptor, fcntl.LOCK_EX)


def try_shared(descriptor: int) -> bool:
    """Take the lock together with others, if nobody holds it alone."""
    return _try_lock(descriptor, fcntl.LOCK_SH)


def unlock(descriptor: int) -> None:
    """Release the lock, for every process that shares the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_in_time(
    take: Callable[[int], bool], descriptor: int, seconds: float, store: Path, why_not: str
) -> None:
    """Take the lock within `seconds`. Otherwise closes the descriptor and raises Unreachable."""
    if not wait_until(lambda: take(descriptor), seconds):
        os.close(descriptor)
        raise not_started(store, f"{why_not} (waited {seconds:.0f} s)")


def is_held(path: Path) -> bool:
    """Whether a process holds the lock alone."""
    lock = open_lock(path)
    try:
        if not try_shared(lock):
            return True
        unlock(lock)
        return False
    finally:
        os.close(lock)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition became true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL)
    return True
