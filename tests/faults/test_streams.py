"""Faults of streams and durables: full, deleted, blocked by retries, unreadable messages."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.command import Command
from tests.faults.support.nodes import Node
from tests.faults.support.proxy import Proxy
from tests.faults.support.stage import STREAM, Stage
from tests.waiting import eventually

CONSUMERS = ("Pulled", "Pushed")
DEAD_LETTERS = f"{STREAM}-dlq"
pytestmark = pytest.mark.timeout(90)


@contextmanager
def load(stage: Stage, count: int, **options: object) -> Iterator[Command]:
    """A worker at work; at the end everything is settled and compared."""
    stage.attributes.setdefault("concurrency", 5)
    worker = stage.work(*CONSUMERS).is_ready()
    producer = stage.produce(count, rate=200, **options)  # type: ignore[arg-type]
    stage.goes_on()
    yield producer
    assert producer.finish(timeout=60) == 0, producer.output
    stage.settled(*CONSUMERS)
    stage.stop(worker)


@pytest.mark.faults_smoke
def test_a_full_dead_letter_stream_loses_nothing_and_ends_nothing(stage: Stage) -> None:
    config = {"max_msgs": 2, "discard": "new", "subjects": [f"dlq.{STREAM}.>"]}
    stage.witness.create_stream(DEAD_LETTERS, **config)
    mix = [[9, {}], [1, {"do": "give up"}]]
    with load(stage, 300, mix=mix), stage.fault("dead letter stream full"):
        eventually(lambda: "could not be stored" in stage.workers[0].command.output, 20)
        assert stage.witness.stream(DEAD_LETTERS)["state"]["messages"] == 2
        stage.passes(2)
        whole = stage.witness.stream(DEAD_LETTERS)["config"]
        stage.witness.ask(f"STREAM.UPDATE.{DEAD_LETTERS}", {**whole, "max_msgs": -1})
    report = stage.check(*CONSUMERS)
    assert report.counts["dead"] > 2


def test_a_dead_letter_stream_that_is_deleted_under_load_is_recreated(stage: Stage) -> None:
    lost = stage.produce(1, mix=[[1, {"do": "give up"}]], name="lost")
    assert lost.finish() == 0
    mix = [[9, {}], [1, {"do": "give up"}]]
    with load(stage, 400, mix=mix):
        eventually(lambda: stage.witness.messages(DEAD_LETTERS), 20)
        stage.witness.ask(f"STREAM.DELETE.{DEAD_LETTERS}")
        deleted = time.monotonic()
    kept = {json.loads(letter.payload)["id"] for letter in stage.witness.messages(DEAD_LETTERS)}
    given_up = {step.id for step in stage.handled("FAIL") if step.at > deleted}
    assert given_up
    assert given_up <= kept


def test_a_durable_that_is_deleted_while_nobody_is_connected_goes_on_where_it_stood(
    stage: Stage, proxy: Proxy
) -> None:
    with load(stage, 2500):
        stage.passes(6)  # the position is read every five seconds
        with stage.fault("durables deleted while the connection was cut"), proxy.down():
            for durable in CONSUMERS:
                stage.witness.ask(f"CONSUMER.DELETE.{STREAM}.{durable}")
            stage.passes(1)
        stage.faults[-1] = stage.faults[-1].since(6)
        stage.goes_on()
    report = stage.check(*CONSUMERS)
    assert report.counts["starts"] < 2500 * 2 + 200 * 2 * 9


def test_retries_that_take_every_place_at_the_server_are_told_and_pass(stage: Stage) -> None:
    stage.attributes |= {
        "max_ack_pending": 20,
        "initial_retry_delay": 15.0,
        "max_retry_delay": 15.0,
        "concurrency": 50,
    }
    worker = stage.work("Pulled").is_ready()
    mix = [[1, {"do": "fail", "attempts": 1}]]
    assert stage.produce(20, mix=mix, name="failing").finish() == 0
    stage.reaches("FAIL", 20)
    assert stage.produce(50, name="good").finish() == 0
    worker.command.wait_for("All 20 deliveries that max_ack_pending allows")
    stage.settled("Pulled", timeout=40)
    stage.stop(worker)
    stage.check("Pulled")


def test_a_durable_that_is_deleted_under_load_goes_on_where_it_stood(stage: Stage) -> None:
    with load(stage, 3000):
        stage.passes(6)  # the position is read every five seconds
        with stage.fault("durables deleted"):
            for durable in CONSUMERS:
                stage.witness.ask(f"CONSUMER.DELETE.{STREAM}.{durable}")
        # What was settled since the position was read comes again (decision 6).
        stage.faults[-1] = stage.faults[-1].since(6)
        stage.goes_on()
    report = stage.check(*CONSUMERS)
    assert report.counts["starts"] < 3000 * 2 + 200 * 2 * 8


def test_a_stream_that_is_deleted_and_recreated_is_consumed(stage: Stage) -> None:
    with load(stage, 2000):
        stage.witness.ask(f"STREAM.DELETE.{STREAM}")
        stage.passes(2)
        stage.witness.create_stream(STREAM)
    there = {json.loads(message.payload)["id"] for message in stage.witness.messages(STREAM)}
    assert len(there) > 1000
    for consumer in CONSUMERS:
        done = {step.id for step in stage.handled() if step.consumer == consumer}
        assert there <= done


BAD_BLOCKS = {
    "a bare carriage return": b"NATS/1.0\r\nTrace: a\rb\r\n\r\n",
    "bytes that are no text": b"NATS/1.0\r\nTrace: \xff\xfe\r\n\r\n",
    "a line without a colon": b"NATS/1.0\r\nno colon\r\n\r\n",
}


@pytest.mark.faults_smoke
def test_headers_that_cannot_be_read_end_as_dead_letters_beside_the_load(
    stage: Stage, node: Node
) -> None:
    with load(stage, 500):
        for number, block in enumerate(BAD_BLOCKS.values()):
            store_raw(node, f"{STREAM}.created", block, b'{"bad": %d}' % number)
    letters = stage.witness.messages(DEAD_LETTERS)
    for consumer in CONSUMERS:
        mine = [letter for letter in letters if letter.subject.endswith(f".{consumer}")]
        kept = {base64.b64decode(dict(letter.headers)["Dlq-Headers"]) for letter in mine}
        assert kept == set(BAD_BLOCKS.values())
        assert sorted(letter.payload for letter in mine) == [b'{"bad": %d}' % n for n in range(3)]
        done = {step.id for step in stage.handled() if step.consumer == consumer}
        assert done == {f"p-{number}" for number in range(500)}


def test_headers_as_large_as_a_stream_takes_end_as_a_dead_letter_too(
    stage: Stage, node: Node
) -> None:
    worker = stage.work("Pulled").is_ready()
    block = b"NATS/1.0\r\nLarge: %s\r\n\r\n" % (b"x" * 65_500)
    store_raw(node, f"{STREAM}.created", block, b'{"id": "large", "do": "give up"}')
    stage.settled("Pulled", timeout=20)
    stage.stop(worker)
    headers, letter = stage.witness.messages(DEAD_LETTERS)
    assert headers.payload == block
    assert json.loads(letter.payload)["id"] == "large"
    assert len(stage.handled("START")) == 1


def store_raw(node: Node, subject: str, block: bytes, payload: bytes) -> None:
    """Publish what no client would send."""
    host, _, port = node.url.removeprefix("nats://").partition(":")
    size, whole = len(block), len(block) + len(payload)
    frame = b"HPUB %s %d %d\r\n%s%s\r\n" % (subject.encode(), size, whole, block, payload)
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.recv(65536)
        connection.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n' + frame + b"PING\r\n")
        received = b""
        while b"PONG" not in received:
            received += connection.recv(65536)
