"""A worker with many consumers: it rests, starts, or wakes after an outage."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from workloads.lineup import Contestant

from harness import meter
from harness.environments import Environment
from harness.match import ContestantFailed, Result, Worker
from harness.readiness import Readiness
from harness.server import Server
from harness.timed import PUBLISHER, of_figures, publish

EXISTING = "streams and durables exist, s"
FIRST, ALL = "first message, s", "all handled, s"

_READY_SECONDS = 60.0
_WAKE_SECONDS = 90.0
_BACKLOG = 50_000
_MINUTE = 60.0
# The first minute is the start; each of these is measured apart.
_MINUTES = (2, 3, 4)


def rest(server: Server, contestant: Contestant, environment: Environment, scale: float) -> Result:
    """Let a worker be idle for four minutes. Raises ContestantFailed."""
    task = _shared(server, contestant, "Idle", _count(contestant, scale))
    connections = server.connections()
    with _bound(server, contestant, environment, task) as worker:
        return _idle(server, worker, connections)


def _idle(server: Server, worker: Worker, connections: int) -> Result:
    pids = meter.session(worker.pid)
    time.sleep(_MINUTE)
    noise = meter.Noise(lambda: [*pids, server.pid])
    cpu, server_cpu = meter.cpu_seconds(pids), meter.cpu_seconds([server.pid])
    requests: dict[str, float] = {}
    for minute in _MINUTES:
        before = server.api_requests()
        time.sleep(_MINUTE)
        requests[f"API requests, minute {minute}"] = server.api_requests() - before
    figures = {
        "resident, MiB": meter.rss_mib(pids),
        "connections": server.connections() - connections,
        "threads": meter.threads(pids),
        "open files": meter.open_files(pids),
        **requests,
        "worker CPU, s a minute": (meter.cpu_seconds(pids) - cpu) / len(_MINUTES),
        "server CPU, s a minute": (meter.cpu_seconds([server.pid]) - server_cpu) / len(_MINUTES),
    }
    return of_figures(figures, noise)


def start(server: Server, contestant: Contestant, environment: Environment, scale: float) -> Result:
    """Start a worker twice: with --setup before its streams exist, and again when they do. Each
    consumer has a stream of its own. Raises ContestantFailed."""
    streams = [f"Start{number}" for number in range(_count(contestant, scale))]
    noise = meter.Noise(lambda: [server.pid])
    try:
        new, _ = _started(server, contestant, environment, streams, "set up")
        existing, whole = _started(server, contestant, environment, streams, "start")
    finally:
        for stream in streams:
            server.delete_stream(stream)
    figures = {
        EXISTING: existing,
        "none exists, --setup, s": new,
        "they exist, from the process's start, s": whole,
    }
    return of_figures(figures, noise)


def _started(
    server: Server,
    contestant: Contestant,
    environment: Environment,
    streams: Sequence[str],
    work: str,
) -> tuple[float, float]:
    """Seconds until all are ready, from Django's set-up and from the start of the process."""
    task = _task(server, contestant, [f"{stream}.event" for stream in streams]) | {"work": work}
    with Readiness() as readiness:
        began = time.monotonic()
        worker = Worker(contestant, readiness.told_in(environment), json.dumps(task))
        try:
            worker.wait_until_ready()
            django_is_up = time.monotonic()
            worker.go()
            ready = readiness.wait(_READY_SECONDS)
            _check_bound(server, streams, len(streams))
            worker.finish()
        finally:
            worker.kill()
    return ready - django_is_up, ready - began


def wake(server: Server, contestant: Contestant, environment: Environment, scale: float) -> Result:
    """End the server below idle consumers, and let it come back with a backlog for all of them.
    Raises ContestantFailed."""
    task = _shared(server, contestant, "Wake", contestant.options["consumers"])
    task["messages"] = round(_BACKLOG * scale)
    with _bound(server, contestant, environment, task) as worker:
        noise = meter.Noise(lambda: [worker.pid, server.pid])
        back = _come_back(server, environment, task, contestant.options["outage"])
        report = worker.report(_WAKE_SECONDS)
        return of_figures({FIRST: report["first"] - back, ALL: report["last"] - back}, noise)


def _come_back(
    server: Server, environment: Environment, task: dict[str, Any], outage: float
) -> float:
    """End the server, store the backlog where the worker does not see it, and come back. Return
    when it was back, by the wall clock."""
    port, deadline = server.port, time.monotonic() + outage
    server.stop()
    server.start()
    backlog = {**task, "url": server.url, "work": "many", "payload": "{}"}
    publish(server, PUBLISHER, environment, backlog)
    server.stop()
    time.sleep(max(0.0, deadline - time.monotonic()))
    server.start(port)
    return time.time()


@contextmanager
def _bound(
    server: Server, contestant: Contestant, environment: Environment, task: dict[str, Any]
) -> Iterator[Worker]:
    """A worker whose consumers are ready on a stream that they share, for as long as it takes."""
    server.make_stream(task["stream"])
    try:
        with Readiness() as readiness:
            worker = Worker(contestant, readiness.told_in(environment), json.dumps(task))
            try:
                worker.wait_until_ready()
                worker.go()
                readiness.wait(_READY_SECONDS)
                _check_bound(server, [task["stream"]], len(task["subjects"]))
                yield worker
            finally:
                worker.kill()
    finally:
        server.delete_stream(task["stream"])


def _check_bound(server: Server, streams: Sequence[str], consumers: int) -> None:
    """A worker is ready too when some of its consumers did not start."""
    bound = sum(server.consumers(stream) for stream in streams)
    if bound != consumers:
        raise ContestantFailed(f"{bound} of {consumers} consumers were bound")


def _count(contestant: Contestant, scale: float) -> int:
    consumers: int = contestant.options["consumers"]
    return max(1, round(consumers * scale))


def _shared(server: Server, contestant: Contestant, stream: str, consumers: int) -> dict[str, Any]:
    subjects = [f"{stream}.s{number}.event" for number in range(consumers)]
    return {**_task(server, contestant, subjects), "stream": stream}


def _task(server: Server, contestant: Contestant, subjects: Sequence[str]) -> dict[str, Any]:
    return {
        "url": server.url,
        "stream": "",
        "kind": contestant.kind,
        "subjects": subjects,
        "options": contestant.options,
    }
