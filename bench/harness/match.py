"""One contestant, one round: start it, let it run, and ask the server how it did."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from workloads.lineup import Contestant

from harness import meter
from harness.environments import Environment
from harness.server import Server, is_settled, seconds_to_settle

_READY_SECONDS = 30.0
_RUN_SECONDS = 90.0
_END_SECONDS = 10.0
_POLL_SECONDS = 0.02


class ContestantFailed(Exception):
    """A contestant did not do its part; the message ends with the last lines that it printed."""


@dataclass
class Result:
    """Result of one contestant in one round."""

    messages: int
    seconds: float
    worker_cpu: float
    server_cpu: float
    rss_mib: float
    foreign: float
    """Cores that others had taken meanwhile: their CPU seconds per second."""
    latencies_ns: list[int] = field(default_factory=list)
    rss_growth_mib: float | None = None
    """How much larger it was at the end than after the first backlog, where there were several; the
    largest it was, against its size before the first message, where it is that which counts."""

    figures: dict[str, float] = field(default_factory=dict)
    """What it is about instead of a rate: by the name that its column has."""

    @property
    def rate(self) -> float:
        """Messages settled per second."""
        return self.messages / self.seconds


@dataclass(frozen=True)
class Start:
    """Fields of a match's task, and the number of deliveries that end it."""

    task: dict[str, Any]
    messages: int
    processes: int = 1
    counts: bool = True
    """Whether the handlers count, so that their number can be checked too."""
    pace: Callable[[], subprocess.Popen[str]] | None = None
    """Publishes at a steady rate from the time when the durable exists."""
    bystanders: Callable[[], Sequence[int]] = list
    """What works for the handlers too: a database."""
    seconds: float = _RUN_SECONDS
    """How long it may take."""


class Worker:
    """A contestant's process, spoken to by lines."""

    def __init__(self, contestant: Contestant, environment: Environment, task: str) -> None:
        native = contestant.environment == "native"
        entry = contestant.module if native else f"contestants.{contestant.module}"
        self._process = environment.popen(entry, task)
        self._errors: list[str] = []
        self._reader = threading.Thread(target=self._keep_errors, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id, and that of its session."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def wait_until_ready(self) -> None:
        """Return when everything is loaded. Raises ContestantFailed."""
        if self._line(_READY_SECONDS) != "ready":
            raise self.failure("it did not get ready")

    def go(self) -> None:
        """Start the race for it."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        """End it; returns its report. Raises ContestantFailed."""
        self._process.send_signal(signal.SIGTERM)
        return self.report(_END_SECONDS)

    def report(self, seconds: float) -> dict[str, Any]:
        """The report that it prints within this number of seconds. Raises ContestantFailed."""
        line = self._line(seconds)
        if not line.startswith("{"):
            raise self.failure("it printed no report")
        facts: dict[str, Any] = json.loads(line)
        return facts

    def kill(self) -> None:
        """Make sure that the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=1)

    def failure(self, what: str) -> ContestantFailed:
        """The error to raise, with the last lines of its standard error."""
        self._reader.join(timeout=1)
        return ContestantFailed(" / ".join([what, *self._errors[-3:]]))

    def _line(self, seconds: float) -> str:
        assert self._process.stdout is not None
        lines: list[str] = []
        reading = threading.Thread(target=_read_line, args=(self._process.stdout, lines))
        reading.daemon = True
        reading.start()
        reading.join(seconds)
        return lines[0].strip() if lines else ""

    def _keep_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors = [*self._errors[-20:], line.strip()]


def play(server: Server, contestant: Contestant, environment: Environment, start: Start) -> Result:
    """Run the contestant until everything is settled. Raises ContestantFailed."""
    task = json.dumps(start.task)
    workers = [Worker(contestant, environment, task) for _ in range(start.processes)]
    publishers: list[subprocess.Popen[str]] = []
    try:
        for worker in workers:
            worker.wait_until_ready()
        pids = [pid for worker in workers for pid in meter.session(worker.pid)]
        cpu, server_cpu = meter.cpu_seconds(pids), meter.cpu_seconds([server.pid])
        resting = meter.rss_mib(pids)
        noise = meter.Noise(
            lambda: [*pids, server.pid, *start.bystanders(), *(each.pid for each in publishers)]
        )
        for worker in workers:
            worker.go()
        info = _wait_until_settled(server, workers, start, publishers)
        cpu = meter.cpu_seconds(pids) - cpu
        server_cpu = meter.cpu_seconds([server.pid]) - server_cpu
        foreign = noise.cores()
        rss = meter.peak_rss_mib(pids)
        reports = [worker.finish() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
        for publisher in publishers:
            publisher.wait(timeout=_END_SECONDS)
        _forget(server, start.task)
    _check_once(info, reports, start)
    latencies = [latency for report in reports for latency in report["latencies_ns"]]
    seconds = seconds_to_settle(info)
    return Result(start.messages, seconds, cpu, server_cpu, rss, foreign, latencies, rss - resting)


def _forget(server: Server, task: dict[str, Any]) -> None:
    server.delete_consumer(task["stream"], task["durable"])
    if task["beside"]:
        server.delete_consumer(task["beside"], f"{task['durable']}-slow")


def _wait_until_settled(
    server: Server, workers: list[Worker], start: Start, publishers: list[subprocess.Popen[str]]
) -> dict[str, Any]:
    stream, durable = start.task["stream"], start.task["durable"]
    deadline = time.monotonic() + start.seconds
    while time.monotonic() < deadline:
        info = server.consumer(stream, durable)
        if info is not None and is_settled(info, start.messages):
            return info
        if info is not None and start.pace is not None and not publishers:
            publishers.append(start.pace())
        for worker in workers:
            if worker.has_ended:
                raise worker.failure("it ended early")
        time.sleep(_POLL_SECONDS)
    info = server.consumer(stream, durable) or {}
    state = {key: info.get(key) for key in ("delivered", "num_pending", "num_ack_pending")}
    raise workers[0].failure(f"not settled after {start.seconds:g} s: {state}")


def _check_once(info: dict[str, Any], reports: list[dict[str, Any]], start: Start) -> None:
    delivered = info["delivered"]["consumer_seq"]
    handled = sum(report["handled"] for report in reports)
    if delivered != start.messages or info["num_redelivered"]:
        raise ContestantFailed(f"{delivered} deliveries of {start.messages} messages")
    if start.counts and handled != start.messages:
        raise ContestantFailed(f"{handled} of {start.messages} messages were handled")


def _read_line(pipe: IO[str], lines: list[str]) -> None:
    lines.append(pipe.readline())
