"""Servers and task queues that fork: each child publishes on a connection of its own."""

import json
import socket
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.command import Command
from tests.faults.support.stage import STREAM, Stage
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(90)
ORDERS = 60


def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def get(url: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return dict(json.load(response))
    except urllib.error.URLError:
        return None


def all_are_published(stage: Stage, server: Command, address: str, view: str) -> None:
    """By several processes, at the same time; what they were told is what the stream has."""
    try:
        eventually(lambda: get(f"{address}/{view}/first"), 30, lambda: server.output)
        names = [f"order-{number}" for number in range(ORDERS)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda name: get(f"{address}/{view}/{name}"), names))
    finally:
        server.interrupt()
    server.finish()
    assert all(answers), server.output
    told = {name: answer["seq"] for name, answer in zip(names, answers, strict=True) if answer}
    stored = {
        json.loads(message.payload)["id"]: message.seq for message in stage.witness.messages(STREAM)
    }
    assert told == {name: seq for name, seq in stored.items() if name != "first"}
    assert len(Counter(answer["pid"] for answer in answers if answer)) > 1, "one process did it all"


@pytest.mark.parametrize("worker", ["sync", "gthread"])
@pytest.mark.parametrize("preload", [True, False], ids=["preload", "each on its own"])
def test_gunicorn(stage: Stage, worker: str, preload: bool) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed: `make faults` does it")
    bind = f"127.0.0.1:{port()}"
    options = ["--workers=3", f"--worker-class={worker}", "--threads=2", f"--bind={bind}"]
    options += ["--graceful-timeout=2", *(["--preload"] if preload else [])]
    application = "parent:wsgi" if preload else "web:wsgi"
    server = stage.run("-m", "gunicorn", *options, application)
    all_are_published(stage, server, f"http://{bind}", "order")


@pytest.mark.parametrize("view", ["order", "async"])
def test_uvicorn(stage: Stage, view: str) -> None:
    pytest.importorskip("uvicorn", reason="uvicorn is not installed: `make faults` does it")
    free = port()
    options = ["--workers=2", f"--port={free}", "--lifespan=off"]
    server = stage.run("-m", "uvicorn", *options, "web:asgi")
    all_are_published(stage, server, f"http://127.0.0.1:{free}", view)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(stage: Stage, method: str) -> None:
    command = stage.run("children.py", method, str(ORDERS))
    assert command.finish(timeout=60) == 0, command.output
    told = json.loads(command.output.splitlines()[-1])
    stored = [json.loads(message.payload)["id"] for message in stage.witness.messages(STREAM)]
    assert sorted(stored) == sorted(["parent", *told])
    assert len(set(told.values())) == 3


def test_celery_prefork(stage: Stage) -> None:
    pytest.importorskip("celery", reason="celery is not installed: `make faults` does it")
    options = ["worker", "--pool=prefork", "--concurrency=3", "--loglevel=WARNING"]
    worker = stage.run("-m", "celery", "-A", "tasks", *options, "--without-mingle")
    sender = stage.run("tasks.py", str(ORDERS))
    assert sender.finish() == 0, sender.output
    try:
        count = lambda: stage.witness.stream(STREAM)["state"]["messages"]  # noqa: E731
        eventually(lambda: count() == ORDERS + 1, 40, lambda: worker.output)
    finally:
        worker.interrupt()
    worker.finish()
    pids = {json.loads(each.payload).get("pid") for each in stage.witness.messages(STREAM)}
    assert len(pids) > 2, "one process did it all"


def test_a_worker_started_from_a_forked_child_consumes(stage: Stage) -> None:
    """The parent has published before, as a server does that starts workers itself."""
    worker = stage.run("forked_worker.py", "Pulled", "PulledInThreads")
    eventually(lambda: "PulledInThreads: consuming" in worker.output, 30, lambda: worker.output)
    assert stage.produce(100).finish() == 0
    stage.settled("Pulled", "PulledInThreads")
    worker.interrupt()
    assert worker.finish() == 0, worker.output
    assert len(stage.handled()) == 202
