"""Contestants that take their own time, as no durable's info tells it."""

import json
from typing import Any

from workloads.lineup import Contestant

from harness import meter
from harness.environments import Environment
from harness.match import ContestantFailed, Result, Worker
from harness.redis_server import Redis
from harness.server import Server

_RUN_SECONDS = 90.0
# Fills the streams of operations.
PUBLISHER = Contestant(name="the publisher", module="publish_ours", environment="project")


def task_of(
    server: Server, stream: str, messages: int, work: str, *, durable: str, payload: str
) -> dict[str, Any]:
    """The task of a contestant that works on a stream of its own, with one subject."""
    return {
        "url": server.url,
        "stream": stream,
        "durable": durable,
        "subject": f"{stream}.>",
        "subjects": [f"{stream}.event"],
        "work": work,
        "messages": messages,
        "payload": payload,
        "beside": "",
    }


def of_figures(figures: dict[str, float], noise: meter.Noise) -> Result:
    """The result of an operation, which has figures of its own."""
    return Result(0, 0.0, 0.0, 0.0, 0.0, noise.cores(), figures=figures)


def publish(
    server: Server, contestant: Contestant, environment: Environment, task: dict[str, Any]
) -> Result:
    """Run the publisher on an empty stream; the stream says whether all is there. Raises
    ContestantFailed."""
    result, _ = run(server.pid, contestant, environment, task)
    stored = server.messages(task["stream"])
    if stored != task["messages"]:
        raise ContestantFailed(f"{stored} of {task['messages']} messages were stored")
    return result


def sleep(
    server: Server, contestant: Contestant, environment: Environment, task: dict[str, Any]
) -> Result:
    """Run an event loop that consumes nothing. Raises ContestantFailed."""
    return run(server.pid, contestant, environment, task)[0]


def take_tasks(
    redis: Redis, contestant: Contestant, environment: Environment, task: dict[str, Any]
) -> Result:
    """Run Celery, which fills its queue itself before it is ready. Raises ContestantFailed."""
    result, report = run(redis.pid, contestant, environment, {**task, "url": redis.url})
    if report["handled"] != task["messages"]:
        raise ContestantFailed(f"{report['handled']} of {task['messages']} tasks were handled")
    return result


def run(
    server_pid: int, contestant: Contestant, environment: Environment, task: dict[str, Any]
) -> tuple[Result, dict[str, Any]]:
    """Run a contestant that reports its own seconds; return the report too. Raises
    ContestantFailed."""
    worker = Worker(contestant, environment, json.dumps(task))
    try:
        worker.wait_until_ready()
        cpu = meter.cpu_seconds(meter.session(worker.pid))
        server_cpu = meter.cpu_seconds([server_pid])
        noise = meter.Noise(lambda: [*meter.session(worker.pid), server_pid])
        worker.go()
        report = worker.report(_RUN_SECONDS)
        pids = meter.session(worker.pid)
        foreign, rss = noise.cores(), meter.peak_rss_mib(pids)
        cpu = meter.cpu_seconds(pids) - cpu
        server_cpu = meter.cpu_seconds([server_pid]) - server_cpu
    finally:
        worker.kill()
    messages, seconds = task["messages"], report["seconds"]
    return Result(messages, seconds, cpu, server_cpu, rss, foreign), report
