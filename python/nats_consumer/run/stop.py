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
from typing import Any

from nats_consumer import _native

from . import logs
from .hangup import Terminal
from .wakeups import clear, wakeups

_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none
# A process manager often signals the process and then its group, milliseconds apart: one request.
SAME_SECONDS = 1.0
# What the signals did before, while ours are set.
_before: dict[signal.Signals, Any] = {}
# The signals that this thread had blocked before it forked.
_held = threading.local()


class Heard:
    """The signal that stopped a process. `restarts` tells whether it is to begin again, because it
    was SIGHUP, and not for a terminal that was closed."""

    def __init__(self) -> None:
        self.restarts = False
        self._terminal = Terminal()

    def note(self, number: int) -> None:
        """Take note of the first signal."""
        self.restarts = number == _HANGUP and not self._terminal.is_gone()


@contextmanager
def set_by_signals(
    stopping: asyncio.Event, *, grace: float, exits: bool = False
) -> Iterator[Heard]:
    """The first SIGTERM, SIGINT or SIGHUP sets `stopping`; one that comes SAME_SECONDS later or
    more ends the process with 128 and its number. SIGTERM or SIGINT after SIGHUP is the first one
    again: the process no longer restarts. Where `nohup` has SIGHUP ignored, it stays so.
    The engine hears them too: it stops taking messages at once, and ends the process `grace` and
    five seconds after the first signal if Python has not.

    Afterwards the signals are as before, unless the process `exits` once it was stopped: then they
    can no longer change its status, and the engine still ends it in time. A forked child has them
    as before at once."""
    if threading.current_thread() is not threading.main_thread():
        yield Heard()  # Python lets only the main thread handle signals
        return
    loop = asyncio.get_running_loop()
    heard = Heard()
    handler = _Handler(stopping, heard, loop)
    before = {number: signal.signal(number, handler) for number in _signals()}
    _before.update(before)
    watch = _native.watch_signals(list(before), grace, SAME_SECONDS)
    try:
        with _waking(loop):
            yield heard
        handler.is_over = exits and stopping.is_set()
    finally:
        _before.clear()
        if handler.is_over:
            watch.drained()
            atexit.register(_leave_signals_to_the_engine)
        else:
            watch.end()
            for number, previous in before.items():
                signal.signal(number, previous)


@contextmanager
def _waking(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """In the body, each signal wakes the loop, or its handler would wait for the next event."""
    with wakeups() as wakes:
        loop.add_reader(wakes, clear, wakes)
        try:
            yield
        finally:
            loop.remove_reader(wakes)


def _hold_signals() -> None:
    # Or one that arrives before the child has its own handlers would be the worker's.
    if _before:
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, list(_before))


def _release_signals() -> None:
    if (mask := _held.__dict__.pop("mask", None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _restore_in_child() -> None:
    for number, previous in _before.items():
        signal.signal(number, previous)
    _before.clear()
    _release_signals()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    # A handler's child process is not a worker: SIGTERM ends it, as it ends any other program.
    os.register_at_fork(
        before=_hold_signals,
        after_in_parent=_release_signals,
        after_in_child=_restore_in_child,
    )


def _signals() -> list[signal.Signals]:
    signals = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        signals.append(_HANGUP)
    return signals


class _Handler:
    # Not loop.add_signal_handler: it would wait for a loop that a blocking handler holds up.
    def __init__(
        self, stopping: asyncio.Event, heard: Heard, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.is_over = False
        self._heard = heard
        self._stopping = stopping
        self._loop = loop
        self._first = 0.0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        is_to_restart = self._heard.restarts and number != _HANGUP
        if not self._stopping.is_set() or is_to_restart:
            self._first = time.monotonic()
            self._heard.note(number)
            self._stopping.set()
            # From here the loop may be asleep: wake it up.
            self._loop.call_soon_threadsafe(lambda: None)
        elif time.monotonic() - self._first >= SAME_SECONDS:
            logs.flush()
            os._exit(0 if self.is_over else 128 + number)


def _leave_signals_to_the_engine() -> None:
    # While Python ends it gives handled signals their default back, which would kill; it leaves
    # those alone that it takes to be ignored. The engine still hears them: a function of atexit
    # that runs after this one, or a child that Python waits for, may never end.
    numbers = _signals()
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
    _native.SignalWatch.hear_again([*numbers])
