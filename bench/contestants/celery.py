"""Celery on Redis, with what its guide to optimizing recommends for short tasks: a process for each
core, a large prefetch, no results. Acknowledged late, because that is what JetStream promises."""

import json
import multiprocessing
import os
import threading
import time
import uuid
from typing import Any

import redis
from celery import Celery
from celery.signals import worker_process_init, worker_ready

from contestants.task import ready, report, task

_PART = task()
_CORES = os.cpu_count() or 1
_PREFETCH = 128  # "64, or 128" for tasks of milliseconds
_POLL_SECONDS = 0.02
_CHUNK = 10_000
_QUEUE = "celery"
_COUNTS = multiprocessing.Array("q", _CORES + 1)
_NEXT = multiprocessing.Value("i", 0)

app = Celery("bench", broker=_PART.url)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=_PREFETCH,
    worker_disable_rate_limits=True,
    worker_redirect_stdouts=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
_own = {"place": 0}


@worker_process_init.connect
def _take_a_place(**_: Any) -> None:
    with _NEXT.get_lock():
        _own["place"] = _NEXT.value
        _NEXT.value += 1


@app.task(name="parse")
def parse(text: str) -> None:
    """Parse and count."""
    json.loads(text)
    _COUNTS.get_obj()[_own["place"]] += 1  # each process has a place of its own


def _fill(queue: "redis.Redis") -> None:
    """Store the tasks as Celery would: one of its own, copied with another id."""
    queue.flushall()
    parse.delay(_PART.payload)
    template = json.loads(queue.rpop(_QUEUE))
    for first in range(0, _PART.messages, _CHUNK):
        count = min(_CHUNK, _PART.messages - first)
        queue.lpush(_QUEUE, *(_copy(template) for _ in range(count)))


def _copy(message: dict[str, Any]) -> str:
    name, tag = str(uuid.uuid4()), str(uuid.uuid4())
    headers = {**message["headers"], "id": name, "root_id": name}
    properties = {**message["properties"], "correlation_id": name, "delivery_tag": tag}
    return json.dumps({**message, "headers": headers, "properties": properties})


@worker_ready.connect
def _start_the_clock(**_: Any) -> None:
    queue, began = redis.Redis.from_url(_PART.url), time.perf_counter()
    threading.Thread(target=_report_when_done, args=(queue, began), daemon=True).start()


def _report_when_done(queue: "redis.Redis", began: float) -> None:
    while queue.llen(_QUEUE) or queue.hlen("unacked") or sum(_COUNTS) < _PART.messages:
        time.sleep(_POLL_SECONDS)
    report(seconds=time.perf_counter() - began, handled=sum(_COUNTS))


def _main() -> None:
    _fill(redis.Redis.from_url(_PART.url))
    ready()
    alone = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
    pool = ["--pool=prefork", f"--concurrency={_CORES}", "-Ofair"]
    app.worker_main(["--quiet", "worker", *pool, *alone])


if __name__ == "__main__":
    _main()
