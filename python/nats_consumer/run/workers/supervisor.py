"""The supervisor's own process: signals come in, turns follow."""

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

from nats_consumer import _native
from nats_consumer.connect.log import LogPump
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.run.hangup import Terminal
from nats_consumer.run.notify import Manager
from nats_consumer.run.wakeups import heard

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
        heard(_signals()) as next_signals,
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
            self._processes.numbers.note_drain()
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


def _signals() -> list[signal.Signals]:
    signals = [*_DRAIN, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    return signals
