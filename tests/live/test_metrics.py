"""Metrics: exact, bounded, readable by Prometheus, and there after a worker was killed."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from nats_consumer import _native, apublish, apublish_many, metrics
from nats_consumer.exceptions import NoStreamResponse, NotAllStored, PublishTimeout
from tests.live.support.probes import OPENMETRICS, Samples, consuming
from tests.live.support.project import Project
from tests.live.support.publishers import own_publishers
from tests.live.support.stage import Stage, running
from tests.live.support.supervised import Supervised, kill
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

LEDGER = """
import os
from nats_consumer import DeadLetter, Drop, JetstreamPullConsumer


class Orders(JetstreamPullConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    concurrency = 8
    initial_retry_delay = 0.01
    ack_wait = 5

    async def handle_message(self, message):
        number = int(message.data)
        if number % 100 == 1:
            note("dead_letter")
            raise DeadLetter("a bad one")
        if number % 100 == 2:
            note("drop")
            raise Drop("of no use")
        if number % 10 == 3 and message.attempt == 1:
            note("retry")
            raise ValueError("not yet")
        note("ack")


def note(outcome):
    file = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, outcome.encode() + b"\\n")
    os.close(file)
"""
OUTCOMES = ("ack", "retry", "dead_letter", "drop")
MANY = 10_000


@pytest.mark.timeout(170)
async def test_metrics_of_four_workers_equal_the_ledger_though_one_is_killed_and_one_replaced(
    stage: Stage, make_project: Callable[..., Project]
) -> None:
    project = make_project(LEDGER.format(stream=stage.stream))
    workers = Supervised(project, 4)
    seen: list[Counter[str]] = []

    def settled() -> int:
        samples = workers.probes.samples()
        values = {each: samples.value("settled_total", outcome=each) for each in OUTCOMES}
        seen.append(Counter({each: int(value or 0) for each, value in values.items()}))
        return seen[-1].total()

    for number in range(MANY):
        await stage.client.publish(f"{stage.stream}.created", str(number).encode())
    await stage.client.flush()
    await becomes_true(lambda: settled() > MANY // 10, within=60)
    first, second, *_ = sorted(workers.pids())
    kill(first)
    kill(second, signal.SIGTERM)
    await becomes_true(lambda: settled() >= 0 and is_done(stage), within=120)
    workers.become_ready(without={first, second})
    settled()
    ledger = Counter((project.folder / "ledger").read_text().split())
    # What the killed one had noted, and not settled any more.
    lost = Counter(ledger)
    lost.subtract(seen[-1])
    assert all(0 <= lost[outcome] <= 8 for outcome in OUTCOMES), (ledger, seen[-1])
    for before, after in pairwise(seen):
        assert all(after[outcome] >= before[outcome] for outcome in OUTCOMES)
    assert (workers.starts("killed"), workers.starts("stopped")) == (1, 1)
    workers.finish()


def is_done(stage: Stage) -> bool:
    info = stage.server.consumer(stage.stream, "Orders")
    return info["num_pending"] == 0 and info["num_ack_pending"] == 0


UNBOUNDED = """
from nats_consumer import ErrorAckBehavior, JetstreamPullConsumer

CLASSES = [type(f"Error{{number}}", (Exception,), {{}}) for number in range(100)]


class Orders(JetstreamPullConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    max_retries = 0
    handle_error_ack_behavior = ErrorAckBehavior.ACK

    async def handle_message(self, message):
        number = int(message.subject.rpartition(".")[2])
        if number < 100:
            raise CLASSES[number]("no")
"""


async def test_distinct_subjects_and_classes_of_exceptions_make_no_more_series(
    stage: Stage, make_project: Callable[..., Project]
) -> None:
    project = make_project(UNBOUNDED.format(stream=stage.stream))
    _, probes = consuming(project)
    # The server is asked for these at the first look, which does not wait for the answer.
    await becomes_true(lambda: probes.samples().value("pending") is not None)
    before = probes.samples().series()
    for number in range(MANY):
        await stage.client.publish(f"{stage.stream}.{number}", b"x")
    await stage.client.flush()
    await becomes_true(lambda: probes.samples().value("settled_total", outcome="ack") == MANY, 60)
    after = probes.samples()
    late = {"nats_consumer_oldest_seconds", "nats_consumer_dead_letters"}
    more = {(name, labels) for name, labels in after.series() - before if name not in late}
    assert {name for name, _ in more} == {"nats_consumer_failures_total"}
    assert len(more) == 33
    assert after.value("failures_total", exception="other") == 100 - 32
    assert after.value("failures_total") == 100


async def test_prometheus_reads_both_formats(
    stage: Stage, make_project: Callable[..., Project]
) -> None:
    project = make_project(LEDGER.format(stream=stage.stream))
    _, probes = consuming(project)
    await stage.publish(*range(20))
    await becomes_true(lambda: probes.samples().value("deliveries_total", redelivered="true") == 2)
    plain = probes.get("/metrics")
    assert plain.kind == "text/plain; version=0.0.4; charset=utf-8"
    fancy = probes.get("/metrics", accept=OPENMETRICS)
    assert fancy.kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {name: kind for name, kind, *_ in _native.metric_families()}
    types = Samples(fancy.text, is_openmetrics=True).types()
    assert {f"{name}_total" if kind == "counter" else name for name, kind in types.items()} <= {
        name.removesuffix("_info") if kind == "info" else name for name, kind in families.items()
    }
    assert Samples(plain.text).series() == Samples(fancy.text, is_openmetrics=True).series()


@pytest.mark.timeout(120)
async def test_the_lag_is_what_the_server_says(
    stage: Stage, make_project: Callable[..., Project]
) -> None:
    project = make_project(LAG.format(stream=stage.stream))
    _, probes = consuming(project)
    assert probes.samples().value("handler_seconds_count") == 0
    await stage.publish(*range(20))

    answer = await stage.client.request(f"$JS.API.STREAM.INFO.{stage.stream}", b"")
    first = datetime.fromisoformat(json.loads(answer.data)["state"]["first_ts"])

    def agrees() -> bool:
        samples, info = probes.samples(), stage.consumer(type("Orders", (), {}))
        oldest, age = samples.value("oldest_seconds") or 0, datetime.now(UTC) - first
        return (
            samples.value("pending") == info["num_pending"] > 0
            and samples.value("ack_pending") == info["num_ack_pending"] > 0
            and abs(oldest - age.total_seconds()) < 1
        )

    await becomes_true(agrees, 10, lambda: probes.get("/metrics").text)
    assert (probes.samples().value("lag_age_seconds") or 99) < 10
    (project.folder / "go").touch()
    await stage.everything_is_settled(type("Orders", (), {}))
    await becomes_true(lambda: probes.samples().value("oldest_seconds") == 0, 10)
    assert probes.samples().value("pending") == probes.samples().value("ack_pending") == 0
    assert probes.samples().value("dead_letters", stream=stage.stream) == 0


LAG = """
import asyncio
from pathlib import Path
from nats_consumer import JetstreamPushConsumer


class Orders(JetstreamPushConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    max_ack_pending = 4

    async def handle_message(self, message):
        while not Path("go").exists():
            await asyncio.sleep(0.01)
"""


async def test_the_age_of_large_messages_is_not_asked_for(
    stage: Stage, make_project: Callable[..., Project]
) -> None:
    project = make_project(LAG.format(stream=stage.stream))
    asked = await stage.client.subscribe(f"$JS.API.STREAM.MSG.GET.{stage.stream}")
    _, probes = consuming(project)
    await stage.publish(*[b"x" * (1 << 20)] * 6)
    await becomes_true(lambda: (probes.samples().value("pending") or 0) > 0, 20)
    first = probes.samples().value("lag_age_seconds") or 0
    await becomes_true(lambda: (probes.samples().value("lag_age_seconds") or 0) > first, 20)
    await becomes_true(lambda: (probes.samples().value("lag_age_seconds") or 9) < first + 0.5, 20)
    assert probes.samples().value("oldest_seconds") is None
    assert asked.pending_msgs == 0


async def test_metrics_of_ones_own_endpoint_are_those_of_the_process(stage: Stage) -> None:
    async def handle(self: Any, message: Any) -> None: ...

    # A second consumer of one name would have another label, and this process has run others.
    name = f"Shown_{stage.stream}"
    consumer = type(name, (stage.Pull,), {"handle_message": handle})

    async with running(consumer) as shown:
        await stage.publish("one")
        await becomes_true(lambda: shown.total_success_count == 1)
        samples = Samples(metrics.text())
        assert samples.value("settled_total", consumer=name, outcome="ack") == 1
        assert samples.value("state", consumer=name, state="consuming") == 1
        assert samples.value("handler_seconds_count", consumer=name) == 1
        assert samples.value("queue_seconds_count", consumer=name) == 1
    assert Samples(metrics.text()).value("state", consumer=name, state="stopped") == 1


async def test_what_a_process_publishes_is_counted_by_stream_and_result(stage: Stage) -> None:
    def count(result: str, *streams: str) -> float:
        samples = Samples(metrics.text())
        return sum(
            samples.value("published_total", result=result, stream=stream) or 0
            for stream in streams
        )

    def stored() -> float:
        # Other tests of this process may have published to 64 streams before.
        return count("ok", stage.stream, "other")

    subject = f"{stage.stream}.created"
    with own_publishers():
        before = stored()
        await apublish(subject, b"1")
        failed = count("error", "")
        await apublish_many([(subject, b"2"), (subject, b"3")])
        with pytest.raises(NoStreamResponse):
            await apublish(f"nobody-{stage.stream}", b"4")
        with pytest.raises(NotAllStored):
            await apublish_many([(subject, b"5"), (f"nobody-{stage.stream}", b"6")])
    assert stored() == before + 4
    assert count("error", "") == failed + 2


async def test_a_message_that_is_not_confirmed_in_time_is_counted_as_that(stage: Stage) -> None:
    def unconfirmed() -> float:
        samples = Samples(metrics.text())
        return samples.value("published_total", result="timeout", stream="") or 0

    silent = await stage.client.subscribe(f"silent-{stage.stream}")
    with own_publishers():
        before = unconfirmed()
        with pytest.raises(PublishTimeout):
            await apublish(f"silent-{stage.stream}", b"1", timeout=0.2)
        assert unconfirmed() == before + 1
    await silent.unsubscribe()


METHODS = """
from nats_consumer import ConsumerHandler, JetstreamPullConsumer, apublish, handle


class Handler(ConsumerHandler):
    @handle("{stream}.created")
    async def created(self, message):
        await apublish("{stream}.done", b"1")

    @handle("{stream}.paid")
    def paid(self, message):
        if message.attempt == 1:
            raise ValueError("not yet")

    async def fallback_handle(self, message, reason):
        await message.term(reason)


class Orders(JetstreamPullConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    initial_retry_delay = 0.01
    handler = Handler()

    async def handle_message(self, message):
        await self.handler.handle(message)
"""


async def test_methods_of_a_handler_and_what_they_publish_are_counted_through_the_supervisor(
    stage: Stage, make_project: Callable[..., Project]
) -> None:
    project = make_project(METHODS.format(stream=stage.stream))
    workers = Supervised(project, 1)
    await stage.publish(1, 2, event="created")
    await stage.publish(3, event="paid")

    def settled(method: str, outcome: str) -> float | None:
        return workers.probes.samples().value("settled_total", handler=method, outcome=outcome)

    await becomes_true(lambda: settled("fallback_handle", "drop") == 2)
    await becomes_true(lambda: settled("paid", "ack") == 1)
    await becomes_true(lambda: settled("created", "ack") == 2)
    assert settled("paid", "retry") == 1
    assert settled("handle_message", "ack") == 0
    samples = workers.probes.samples()
    assert samples.value("failures_total", handler="paid", exception="ValueError") == 1
    assert samples.value("handler_seconds_count", handler="paid") == 2
    assert samples.value("published_total", stream=stage.stream, result="ok") == 2
    kill(workers.pid())
    workers.command.wait_for("was ended by SIGKILL")
    assert settled("created", "ack") == 2
    workers.finish()


async def test_a_paused_durable_shows_how_long_it_is_still_paused(
    stage: Stage, make_project: Callable[..., Project]
) -> None:
    project = make_project(LAG.format(stream=stage.stream))
    _, probes = consuming(project)
    api = f"$JS.API.CONSUMER.PAUSE.{stage.stream}.Orders"
    await stage.client.request(api, b'{"pause_until": "2099-01-01T00:00:00Z"}')
    await becomes_true(lambda: "Orders paused" in probes.get("/readyz").text, 15)
    assert probes.is_ready()
    assert (probes.samples().value("paused_seconds") or 0) > 3600
    await stage.client.request(api, b"{}")
    await becomes_true(lambda: "Orders consuming" in probes.get("/readyz").text, 15)
    await becomes_true(lambda: probes.samples().value("paused_seconds") == 0, 15)
