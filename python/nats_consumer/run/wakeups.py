"""Signals wake the main thread, whichever thread the kernel gives them to."""

import os
import select
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

_MUCH = 4096


@contextmanager
def wakeups() -> Iterator[int]:
    """In the body, a signal that Python handles makes this file readable. Python runs its handlers
    in the main thread, which goes on sleeping if another thread was given the signal. After SIGSTOP
    and SIGCONT it can be any of them."""
    wakes, wake = os.pipe()
    for each in (wakes, wake):
        os.set_blocking(each, False)
    before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield wakes
    finally:
        signal.set_wakeup_fd(before)
        os.close(wakes)
        os.close(wake)


def clear(wakes: int) -> None:
    """Make the file wait for the next signal."""
    os.read(wakes, _MUCH)


@contextmanager
def heard(signals: Iterable[signal.Signals]) -> Iterator[Callable[[float | None], list[int]]]:
    """Hear these signals: the function waits for some, up to this number of seconds or without
    limit, and returns those that came, which may be none. Afterwards they are ignored: the process
    ends, and none may change its status."""
    numbers = list(signals)
    came: deque[int] = deque()

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    with wakeups() as wakes:
        for each in numbers:
            signal.signal(each, note)

        def wait(seconds: float | None) -> list[int]:
            if not came and select.select([wakes], [], [], seconds)[0]:
                clear(wakes)
            return [came.popleft() for _ in range(len(came))]

        try:
            yield wait
        finally:
            for each in numbers:
                signal.signal(each, signal.SIG_IGN)
