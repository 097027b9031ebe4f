"""The supervisor's own process: signals come in, turns follow."""

import logging
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import FrameType

from nats_consumer import _native
from nats_consumer.connect.log import LogPump
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.run.hangup import Terminal
from nats_consumer.run.notify import Manager

from .fleet import Fleet
from .limits import Limits
from .process import Processes
from .to_systemd import ToSystemd

logger = logging.getLogger("nats_consumer.worker")

_DRAIN = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """The workers to run.

    `http` is the address of probes and metrics for all. `ready_grace` is how long they may be
    unready before /readyz says so, `shutdown_timeout` how long running handlers may go on, both in
    seconds. `runs_setup` gives --setup to the first worker."""

    workers: int
    limits: Limits
    shutdown_timeout: float
    http: str | None
    ready_grace: float
    runs_setup: bool


def supervise(plan: Supervision) -> int:
    """Run workers until SIGTERM or SIGINT; return the exit status. Raises ConfigurationError where
    the platform cannot share memory with workers."""
    if not sys.platform.startswith("linux"):
        raise ConfigurationError("--workers needs Linux.")
    processes = Processes()
    fleet = Fleet(
        plan.workers,
        limits=plan.limits,
        shutdown_timeout=plan.shutdown_timeout,
        start=processes.start,
        clock=time.monotonic,
        random=Random(),  # noqa: S311 -- it spreads pauses
        runs_setup=plan.runs_setup,
    )
    processes.numbers.beat()
    with (
        LogPump(_native.take_logs, _native.wake_logs),
        _served(processes.numbers, plan),
        _heard() as next_signals,
    ):
        return _Supervisor(fleet, processes, next_signals).run()


@contextmanager
def _served(numbers: _native.Fleet, plan: Supervision) -> Iterator[None]:
    if plan.http is None:
        yield
        return
    probes = numbers.serve(plan.http, plan.ready_grace)
    try:
        yield
    finally:
        probes.end()


class _Supervisor:
    def __init__(
        self, fleet: Fleet, processes: Processes, next_signals: Callable[[float], list[int]]
    ) -> None:
        self._fleet = fleet
        self._processes = processes
        self._next_signals = next_signals
        self._was_ready = False
        self._terminal = Terminal()
        self._to_systemd = ToSystemd(Manager(), fleet)

    def run(self) -> int:
        logger.info("Supervising %d workers.", self._fleet.wanted)
        while not self._fleet.is_over:
            self._fleet.turn()
            self._report()
            for number in self._next_signals(self._fleet.pause()):
                self._hear(number)
        self._report()
        if self._fleet.failure is None:
            logger.info("All workers have ended.")
        return self._fleet.status

    def _report(self) -> None:
        numbers, fleet = self._processes.numbers, self._fleet
        numbers.beat()
        numbers.set_slots(fleet.wanted, fleet.filled)
        self._to_systemd.turn(time.monotonic())
        if fleet.is_ready and not self._was_ready:
            logger.info("All %d workers are ready.", fleet.wanted)
        self._was_ready = fleet.is_ready

    def _hear(self, number: int) -> None:
        fleet = self._fleet
        if number in _DRAIN or (number == signal.SIGHUP and self._terminal.is_gone()):
            logger.info("Draining %d workers.", fleet.wanted)
            fleet.drain(number)
        elif number == signal.SIGHUP:
            fleet.replace_all()
        elif number == signal.SIGTTIN:
            fleet.add()
        elif number == signal.SIGTTOU:
            fleet.remove()
        elif number == signal.SIGUSR1:
            for line in fleet.describe():
                logger.info("%s", line)
            fleet.show()


@contextmanager
def _heard() -> Iterator[Callable[[float], list[int]]]:
    """Hear signals: the function waits for some, up to this number of seconds, and returns them.
    Afterwards they are ignored: the process ends, and none may change its status."""
    heard: deque[int] = deque()

    def note(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            heard.append(number)

    numbers = [*_DRAIN, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    wakes, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in numbers:
        signal.signal(number, note)
    before_wake = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def wait(seconds: float) -> list[int]:
        if not heard and select.select([wakes], [], [], seconds)[0]:
            os.read(wakes, 4096)
        return [heard.popleft() for _ in range(len(heard))]

    try:
        yield wait
    finally:
        signal.set_wakeup_fd(before_wake)
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        os.close(wakes)
        os.close(wake)
