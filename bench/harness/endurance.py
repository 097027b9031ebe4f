"""Many backlogs, one after the other, in one process: does its memory stay as it was?"""

import json
import time
from collections.abc import Callable

from workloads.lineup import Contestant

from harness import meter
from harness.environments import Environment
from harness.match import ContestantFailed, Result, Start, Worker
from harness.server import Server, is_settled

_BACKLOG_SECONDS = 90.0
_POLL_SECONDS = 0.05


def endure(
    server: Server,
    contestant: Contestant,
    environment: Environment,
    start: Start,
    backlogs: int,
    refill: Callable[[], None],
) -> Result:
    """Settle a stream `backlogs` times; `refill()` stores its messages again. Its rate is
    lower than elsewhere: it takes the messages while they are stored. Raises ContestantFailed."""
    worker = Worker(contestant, environment, json.dumps(start.task))
    try:
        worker.wait_until_ready()
        cpu, server_cpu = meter.cpu_seconds([worker.pid]), meter.cpu_seconds([server.pid])
        noise = meter.Noise(lambda: [worker.pid, server.pid])
        worker.go()
        began, sizes = time.monotonic(), []
        for number in range(1, backlogs + 1):
            _wait_until_settled(server, worker, start, number)
            sizes.append(meter.rss_mib([worker.pid]))
            print(f"      {number}: {sizes[-1]:.1f} MiB", flush=True)
            if number < backlogs:
                server.purge(start.task["stream"])
                refill()
        seconds = time.monotonic() - began
        rss = meter.peak_rss_mib([worker.pid])
        cpu = meter.cpu_seconds([worker.pid]) - cpu
        server_cpu = meter.cpu_seconds([server.pid]) - server_cpu
        foreign = noise.cores()
        worker.finish()
    finally:
        worker.kill()
        server.delete_consumer(start.task["stream"], start.task["durable"])
    growth = max(sizes) - sizes[0]
    messages = start.messages * backlogs
    return Result(messages, seconds, cpu, server_cpu, rss, foreign, [], growth)


def _wait_until_settled(server: Server, worker: Worker, start: Start, backlogs: int) -> None:
    stream, durable = start.task["stream"], start.task["durable"]
    deadline = time.monotonic() + _BACKLOG_SECONDS
    while time.monotonic() < deadline:
        info = server.consumer(stream, durable)
        if info is not None and is_settled(info, start.messages * backlogs):
            return
        if worker.has_ended:
            raise worker.failure("it ended early")
        time.sleep(_POLL_SECONDS)
    raise ContestantFailed(f"backlog {backlogs} was not settled after {_BACKLOG_SECONDS:g} s")
