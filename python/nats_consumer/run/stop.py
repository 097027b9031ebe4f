"""SIGTERM, Ctrl-C and SIGHUP: the first signal drains, a later one ends the process."""

import asyncio
import atexit
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from . import logs

_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none
# A process manager often signals the process and then its group, milliseconds apart: one request.
SAME_SECONDS = 1.0


@contextmanager
def set_by_signals(stopping: asyncio.Event, *, exits: bool = False) -> Iterator[None]:
    """The first SIGTERM, SIGINT or SIGHUP sets `stopping`; one that comes SAME_SECONDS later or
    more ends the process with 128 and its number. Where `nohup` has SIGHUP ignored, it stays so.

    Afterwards the signals are as before, unless the process `exits` once it was stopped: then they
    can no longer change its status."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread handle signals
        return
    handler = _Handler(stopping)
    before = {number: signal.signal(number, handler) for number in _signals()}
    try:
        yield
        handler.is_over = exits and stopping.is_set()
    finally:
        if handler.is_over:
            atexit.register(_ignore_signals)
        else:
            for number, previous in before.items():
                signal.signal(number, previous)


def _signals() -> list[signal.Signals]:
    signals = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        signals.append(_HANGUP)
    return signals


class _Handler:
    # Not loop.add_signal_handler: it would wait for a loop that a blocking handler holds up.
    def __init__(self, stopping: asyncio.Event) -> None:
        self.is_over = False
        self._stopping = stopping
        self._loop = asyncio.get_running_loop()
        self._first = 0.0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if not self._stopping.is_set():
            self._first = time.monotonic()
            self._stopping.set()
            # From here the loop may be asleep: wake it up.
            self._loop.call_soon_threadsafe(lambda: None)
        elif time.monotonic() - self._first >= SAME_SECONDS:
            logs.flush()
            os._exit(0 if self.is_over else 128 + number)


def _ignore_signals() -> None:
    # While Python ends it gives handled signals their default back, which would kill; it leaves
    # ignored ones alone.
    for number in _signals():
        signal.signal(number, signal.SIG_IGN)
