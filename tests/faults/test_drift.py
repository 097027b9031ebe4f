"""Somebody changes a durable on the server while it is consumed."""

import json
from typing import Any

import pytest

from tests.faults.support.stage import STREAM, Stage
from tests.waiting import eventually

CONSUMERS = ("Pulled", "PushedInThreads")
pytestmark = pytest.mark.timeout(90)


def change(stage: Stage, durable: str, **config: Any) -> None:
    whole = {**stage.witness.consumer(STREAM, durable)["config"], **config}
    body = {"stream_name": STREAM, "config": whole}
    stage.witness.ask(f"CONSUMER.DURABLE.CREATE.{STREAM}.{durable}", body)


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_shorter_ack_wait_is_kept_up_with(stage: Stage, consumer: str) -> None:
    """As a deploy does that shortens it, while a worker of the version before still runs."""
    stage.attributes |= {"ack_wait": 30.0, "concurrency": 4}
    worker = stage.work(consumer).is_ready()
    with stage.fault("ack_wait changed"):
        change(stage, consumer, ack_wait=2_000_000_000)
        worker.command.wait_for("ack_wait")
    assert stage.produce(8, mix=[[1, {"seconds": 6}]]).finish() == 0
    stage.settled(consumer)
    stage.stop(worker)
    report = stage.check(consumer)
    assert report.counts["starts"] == 8


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_limit_of_deliveries_is_taken_away_again(stage: Stage, consumer: str) -> None:
    """Beyond it a message would stay in the stream, unseen."""
    worker = stage.work(consumer).is_ready()
    change(stage, consumer, max_deliver=1)
    worker.command.wait_for("max_deliver")
    assert stage.produce(20, mix=[[1, {"do": "fail", "attempts": 1}]]).finish() == 0
    stage.settled(consumer)
    stage.stop(worker)
    report = stage.check(consumer)
    assert report.counts["redelivered: retry"] == 20


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_durable_that_would_expire_is_kept_through_a_deploy(stage: Stage, consumer: str) -> None:
    before = stage.work(consumer).is_ready()
    assert stage.produce(20, name="before").finish() == 0
    stage.settled(consumer)
    change(stage, consumer, inactive_threshold=10_000_000_000)
    after = stage.work(consumer).is_ready()
    stage.stop(before)
    stage.stop(after)
    stage.passes(15)
    assert stage.produce(20, name="after").finish() == 0
    second = stage.work(consumer).is_ready()
    stage.settled(consumer)
    stage.stop(second)
    report = stage.check(consumer)
    assert report.counts["starts"] == 40


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_a_filter_that_nothing_matches_any_more_is_told(stage: Stage, consumer: str) -> None:
    worker = stage.work(consumer).is_ready()
    assert stage.produce(20).finish() == 0
    stage.settled(consumer)
    config = stage.witness.stream(STREAM)["config"]
    stage.witness.ask(f"STREAM.UPDATE.{STREAM}", {**config, "subjects": ["sales.>"]})
    worker.command.wait_for(f"{consumer}: Nothing new can arrive: no subject of the stream", 90)
    stage.witness.ask(f"STREAM.UPDATE.{STREAM}", config)
    assert stage.produce(20, name="after").finish() == 0
    stage.settled(consumer)
    stage.stop(worker)
    stage.check(consumer)


def test_two_consumers_that_use_one_durable_by_mistake_share_its_messages(stage: Stage) -> None:
    """Each is handled by one of them; where they declare different things the log says so."""
    stage.attributes |= {"durable_name": "shared", "concurrency": 5}
    one = stage.work("Pulled").is_ready()
    other = stage.work("PulledInThreads", ack_wait=20.0).is_ready()
    one.command.wait_for("The durable was changed on the server: ack_wait from ")
    assert stage.produce(200).finish() == 0
    stage.settled("shared")
    eventually(lambda: len(stage.handled()) == 200, 20, stage.story)
    stage.stop(one)
    stage.stop(other)
    by = {
        consumer: {step.id for step in stage.handled() if step.consumer == consumer}
        for consumer in ("Pulled", "PulledInThreads")
    }
    assert all(by.values())
    there = {json.loads(message.payload)["id"] for message in stage.witness.messages(STREAM)}
    assert by["Pulled"] | by["PulledInThreads"] == there
