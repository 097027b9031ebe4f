"""Cost of failing messages: the backlog of workload A, of which every tenth message fails once.

`.venv/bin/python bench/failing.py [ROUNDS]`: CPU time of worker and server per 100,000 messages,
with no failure and with 10,000, by pull and by push. Nothing is stored.
"""

import json
import statistics
import sys
import time
from typing import Any

from harness import meter
from harness.environments import environment
from harness.match import Worker
from harness.server import Server, is_settled
from harness.streams import Streams
from workloads import WORKLOADS
from workloads.lineup import OURS, Contestant

_ROUNDS = 3
_EVERY = 10
_RETRIES = {"max_deliver": 4, "backoff_delays": [0.1]}
_RUN_SECONDS = 90.0
_POLL_SECONDS = 0.02
_PER = 100_000


def main(rounds: int) -> None:
    """Measure in turn, and print the medians."""
    variants = [(contestant, every) for contestant in OURS for every in (0, _EVERY)]
    results: dict[str, list[tuple[float, float]]] = {}
    with Server() as server:
        streams = Streams(server, WORKLOADS["A"], scale=0.5)
        for number in range(rounds * len(variants)):
            contestant, every = variants[number % len(variants)]
            name = f"{contestant.name}, {f'1 of {every} fails once' if every else 'none fails'}"
            results.setdefault(name, []).append(_play(server, streams, contestant, every, number))
    print(f"| messages | worker CPU, s / {_PER:,} | server CPU, s / {_PER:,} |\n|---|---:|---:|")
    for name, each in results.items():
        worker, server_cpu = (statistics.median(column) for column in zip(*each, strict=True))
        print(f"| {name} | {worker:.2f} | {server_cpu:.2f} |")


def _play(
    server: Server, streams: Streams, contestant: Contestant, every: int, number: int
) -> tuple[float, float]:
    stream = streams.stream(contestant)
    messages = streams.messages(contestant)
    task: dict[str, Any] = {
        "url": server.url,
        "stream": stream,
        "durable": f"d{number}",
        "subject": f"{stream}.>",
        "kind": contestant.kind,
        "work": "fail",
        "options": {"every": every, **_RETRIES},
    }
    worker = Worker(contestant, environment(contestant.environment), json.dumps(task))
    try:
        worker.wait_until_ready()
        before = [meter.cpu_seconds([pid]) for pid in (worker.pid, server.pid)]
        worker.go()
        deliveries = _wait_until_settled(server, worker, task, messages)
        after = [meter.cpu_seconds([pid]) for pid in (worker.pid, server.pid)]
        handled = worker.finish()["handled"]
    finally:
        worker.kill()
        server.delete_consumer(stream, task["durable"])
    failures = messages // every if every else 0
    if (deliveries, handled) != (messages + failures, messages):
        sys.exit(f"{deliveries} deliveries, {handled} handled of {messages} messages")
    used = [(end - begin) * _PER / messages for begin, end in zip(before, after, strict=True)]
    return used[0], used[1]


def _wait_until_settled(server: Server, worker: Worker, task: dict[str, Any], messages: int) -> int:
    """Returns how many deliveries there were."""
    deadline = time.monotonic() + _RUN_SECONDS
    while time.monotonic() < deadline:
        info = server.consumer(task["stream"], task["durable"])
        if info is not None and is_settled(info, messages):
            return int(info["delivered"]["consumer_seq"])
        if worker.has_ended:
            raise worker.failure("it ended early")
        time.sleep(_POLL_SECONDS)
    raise TimeoutError(f"not settled after {_RUN_SECONDS:g} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else _ROUNDS)
