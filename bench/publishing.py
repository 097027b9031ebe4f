"""One publisher, one round: it says how long it took, the stream says whether all is there."""

import json
from typing import Any

import meter
from environments import Environment
from lineup import Contestant
from match import ContestantFailed, Result, Worker
from server import Server

_RUN_SECONDS = 90.0


def publish(
    server: Server, contestant: Contestant, environment: Environment, task: dict[str, Any]
) -> Result:
    """Run the publisher on an empty stream. Raises ContestantFailed."""
    worker = Worker(contestant, environment, json.dumps(task))
    try:
        worker.wait_until_ready()
        cpu, server_cpu = meter.cpu_seconds([worker.pid]), meter.cpu_seconds([server.pid])
        noise = meter.Noise([worker.pid, server.pid])
        worker.go()
        seconds = worker.report(_RUN_SECONDS)["seconds"]
        foreign, rss = noise.cores(), meter.peak_rss_mib([worker.pid])
        cpu = meter.cpu_seconds([worker.pid]) - cpu
        server_cpu = meter.cpu_seconds([server.pid]) - server_cpu
    finally:
        worker.kill()
    stored = server.messages(task["stream"])
    if stored != task["messages"]:
        raise ContestantFailed(f"{stored} of {task['messages']} messages were stored")
    return Result(stored, seconds, cpu, server_cpu, rss, foreign)
