"""The threads of the process in which `def` handlers run. The engine says when one starts, and when
it ends."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from django.db import close_old_connections

from . import enter_thread_lane
from .database import close_connections

if TYPE_CHECKING:
    from nats_consumer._native import ThreadSeat

# What interrupts a thread again and again is not to fill the log.
_INTERRUPTED_SECONDS = 1.0
_NAME = "nats_consumer"

logger = logging.getLogger("nats_consumer.worker")


class HandlerThread(threading.Thread):
    """A thread that runs handlers of one consumer after the other. Its name says for which one it
    works."""

    def __init__(self, seat: "ThreadSeat", number: int | str) -> None:
        # A handler that never returns must not keep the process from ending.
        super().__init__(name=f"{_NAME}-{number}", daemon=True)
        self._idle_name = self.name
        self._number = number
        self._seat = seat

    def run(self) -> None:
        """Serve until the thread is not needed any more."""
        try:
            while not self._has_served():
                time.sleep(_INTERRUPTED_SECONDS)
        finally:
            close_connections()

    def work_for(self, consumer: str) -> str:
        """Take the name that says so, and return it."""
        self.name = f"{consumer}-{self._number}"
        return self.name

    def _has_served(self) -> bool:
        """Serve until nothing will come any more. What ends it early, such as memory that ran out
        beside a handler, costs the delivery it held, and not the thread."""
        try:
            self._seat.serve(self._rest)
        except BaseException:
            logger.exception("%s: a thread was interrupted and continues.", self.name)
            return False
        return True

    def _rest(self) -> None:
        self.name = self._idle_name
        close_old_connections()


def start(seat: "ThreadSeat") -> None:
    """Start a thread, as the engine asks for it."""
    HandlerThread(seat, "late" if seat.is_spare else _free_number()).start()


def enter(consumer: str, loop: asyncio.AbstractEventLoop) -> Callable[[], str]:
    """Return what the engine calls in a thread that begins to work for this consumer."""

    def enter() -> str:
        enter_thread_lane(loop)
        thread = threading.current_thread()
        return thread.work_for(consumer) if isinstance(thread, HandlerThread) else thread.name

    return enter


def alive() -> list[str]:
    """The names of the threads that have not ended."""
    return [each.name for each in threading.enumerate() if isinstance(each, HandlerThread)]


def _free_number() -> int:
    taken = {each._number for each in threading.enumerate() if isinstance(each, HandlerThread)}
    return next(number for number in range(1, len(taken) + 2) if number not in taken)
