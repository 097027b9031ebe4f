"""Publishing from Django code: sync, async, on commit, many at once, after a fork."""

import asyncio
import base64
import copy
import dataclasses
import datetime
import decimal
import gc
import json
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any, cast

import pytest
from django.db import transaction
from pytest_django import Settings

from nats_consumer import (
    Outgoing,
    _native,
    api,
    apublish,
    apublish_many,
    publish,
    publish_many,
    publish_on_commit,
)
from nats_consumer.connect.args import connect_options
from nats_consumer.exceptions import (
    ApiError,
    InvalidMessage,
    NoStreamResponse,
    NotAllStored,
    PayloadTooLarge,
    PublishError,
    PublishTimeout,
    ServiceUnavailable,
    StreamFull,
    Unreachable,
    Unserializable,
)
from tests.live.support.publishers import no_publisher_is_left  # noqa: F401 - after each test
from tests.live.support.streams import add_stream
from tests.servers import NatsServer
from tests.waiting import eventually


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def stream(fresh: Callable[[str], str]) -> str:
    name = fresh("shop")
    add_stream(name)
    return name


def stored(stream: str, *sequences: int) -> list[dict[str, Any]]:
    """Return the stored messages of these sequences: `data` and `hdrs`, decoded."""

    async def read() -> list[dict[str, Any]]:
        connection = await _native.connect(connect_options())
        body = [json.dumps({"seq": sequence}).encode() for sequence in sequences]
        answers = [await connection.api(f"STREAM.MSG.GET.{stream}", each, 5.0) for each in body]
        await connection.close()
        return [json.loads(answer)["message"] for answer in answers]

    return [
        {key: base64.b64decode(message.get(key, "")) for key in ("data", "hdrs")}
        for message in asyncio.run(read())
    ]


def payloads(stream: str, *sequences: int) -> list[bytes]:
    return [message["data"] for message in stored(stream, *sequences)]


def count(server: NatsServer, stream: str) -> int:
    return int(server.stream(stream)["state"]["messages"])


def test_a_view_publishes_and_gets_the_streams_confirmation(
    nats_server: NatsServer, stream: str
) -> None:
    ack = publish(f"{stream}.created", {"number": 1}, headers={"Trace": "abc"})
    assert ack == api.PubAck(stream=stream, seq=1)
    (message,) = stored(stream, 1)
    assert json.loads(message["data"]) == {"number": 1}
    assert b"Trace: abc" in message["hdrs"]


def test_async_code_publishes_too(nats_server: NatsServer, stream: str) -> None:
    async def hundred() -> list[api.PubAck]:
        return await asyncio.gather(*[apublish(f"{stream}.n", str(n)) for n in range(100)])

    acks = asyncio.run(hundred())
    assert sorted(ack.seq for ack in acks) == list(range(1, 101))


def test_what_a_turn_of_the_event_loop_publishes_is_stored_in_the_order_of_the_calls(
    nats_server: NatsServer, stream: str
) -> None:
    async def hundred() -> list[int]:
        calls = [apublish(f"{stream}.n", str(number)) for number in range(100)]
        return [ack.seq for ack in await asyncio.gather(*calls)]

    publish(f"{stream}.n", "the connection is open")
    assert asyncio.run(hundred()) == list(range(2, 102))
    assert payloads(stream, 2, 101) == [b"0", b"99"]


def test_of_what_is_published_together_each_has_an_answer_of_its_own(
    nats_server: NatsServer, stream: str
) -> None:
    async def publish_together() -> list[Any]:
        cancelled = asyncio.ensure_future(apublish(f"{stream}.n", "cancelled"))
        others = [
            asyncio.ensure_future(apublish(subject, "x"))
            for subject in (f"{stream}.n", "nowhere", f"{stream}.n")
        ]
        await asyncio.sleep(0)
        cancelled.cancel()
        return await asyncio.gather(cancelled, *others, return_exceptions=True)

    publish(f"{stream}.n", "the connection is open")
    cancelled, first, second, third = asyncio.run(publish_together())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert (first.seq, third.seq) == (3, 4)
    assert isinstance(second, NoStreamResponse)


def test_a_confirmation_is_as_good_as_one_that_its_class_makes(
    nats_server: NatsServer, stream: str
) -> None:
    ack = publish(f"{stream}.n", "x", msg_id="1")
    made = api.PubAck(stream=stream, seq=1)
    assert type(ack) is api.PubAck
    assert not gc.is_tracked(ack)
    assert (ack, hash(ack), repr(ack)) == (made, hash(made), repr(made))
    assert (ack.as_dict(), vars(ack)) == (made.as_dict(), vars(made))
    assert pickle.loads(pickle.dumps(ack)) == copy.deepcopy(ack) == made
    assert ack.evolve(seq=2) == api.PubAck(stream=stream, seq=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ack.seq = 2  # type: ignore[misc]
    [again] = publish_many([(f"{stream}.n", "y")])
    assert again == api.PubAck(stream=stream, seq=2)


def test_bytes_and_text_go_as_they_are_and_the_rest_as_djangos_json(
    nats_server: NatsServer, stream: str
) -> None:
    price = {"price": decimal.Decimal("9.90"), "day": datetime.date(2026, 1, 31)}
    for data in (b"\x00\xff", bytearray(b"ab"), "grün", price, None):
        publish(f"{stream}.any", data)
    assert payloads(stream, 1, 2, 3, 4, 5) == [
        b"\x00\xff",
        b"ab",
        "grün".encode(),
        b'{"price": "9.90", "day": "2026-01-31"}',
        b"null",
    ]


def test_a_message_with_the_same_id_is_stored_once(nats_server: NatsServer, stream: str) -> None:
    first = publish(f"{stream}.created", "a", msg_id="order-1")
    again = publish(f"{stream}.created", "a", msg_id="order-1")
    assert (first.duplicate, again.duplicate, again.seq) == (None, True, first.seq)
    assert count(nats_server, stream) == 1


def test_many_messages_keep_their_order(nats_server: NatsServer, stream: str) -> None:
    acks = publish_many((f"{stream}.n", str(number)) for number in range(10_000))
    assert [ack.seq for ack in acks] == list(range(1, 10_001))
    assert payloads(stream, 5000) == [b"4999"]


def test_many_may_be_of_whatever_publish_takes(nats_server: NatsServer, stream: str) -> None:
    class Text(str):
        __slots__ = ()

    subject = f"{stream}.n"
    day = {"day": datetime.date(2026, 1, 31)}
    data = [b"\x00", "grün", bytearray(b"ab"), Text("text"), day, None, b"x" * 300_000]
    messages: list[Any] = [[subject, each] for each in data] + [(Text(subject), "") for _ in data]
    assert [ack.seq for ack in publish_many(messages)] == list(range(1, 2 * len(data) + 1))
    assert payloads(stream, *range(1, len(data) + 1)) == [
        b"\x00",
        "grün".encode(),
        b"ab",
        b"text",
        b'{"day": "2026-01-31"}',
        b"null",
        b"x" * 300_000,
    ]


def test_one_of_many_with_an_id_that_is_stored_already_is_a_duplicate(
    nats_server: NatsServer, stream: str
) -> None:
    first = publish(f"{stream}.n", "x", msg_id="order-1")
    again, other = publish_many(
        [
            Outgoing(f"{stream}.n", "x", msg_id="order-1"),
            Outgoing(f"{stream}.n", {"number": 2}, headers={"Source": "shop"}),
        ]
    )
    assert (again.seq, again.duplicate) == (first.seq, True)
    assert (other.seq, other.duplicate) == (2, None)
    assert b"Source: shop" in stored(stream, 2)[0]["hdrs"]


def test_a_bad_header_of_one_of_many_is_refused_with_its_number(
    nats_server: NatsServer, stream: str
) -> None:
    bad = Outgoing(f"{stream}.n", "x", headers={"A": "b\nc"})
    with pytest.raises(InvalidMessage, match="one line") as caught:
        publish_many([(f"{stream}.n", "x"), bad])
    assert caught.value.__notes__ == [f"This was message 1, to '{stream}.n'."]
    assert publish(f"{stream}.n", "x").seq == 1


def test_none_of_many_is_sent_where_one_cannot_be(nats_server: NatsServer, stream: str) -> None:
    def ends_in_a_bug() -> Iterator[tuple[str, Any]]:
        yield f"{stream}.n", "x"
        raise LookupError

    with pytest.raises(InvalidMessage) as caught:
        publish_many([(f"{stream}.n", "x"), ("orders.*", "x")])
    assert caught.value.__notes__ == ["This was message 1, to 'orders.*'."]
    with pytest.raises(TypeError, match=r"a message is \(subject, data\)"):
        publish_many([(f"{stream}.n", "x"), (f"{stream}.n",)])  # type: ignore[list-item]
    with pytest.raises(LookupError):
        publish_many(ends_in_a_bug())
    assert publish(f"{stream}.n", "x").seq == 1


def test_async_code_publishes_many_too(nats_server: NatsServer, stream: str) -> None:
    async def publish_all() -> list[api.PubAck]:
        return await apublish_many((f"{stream}.n", str(number)) for number in range(500))

    assert [ack.seq for ack in asyncio.run(publish_all())] == list(range(1, 501))
    with pytest.raises(ExceptionGroup, match="1 of 2 messages were not stored"):
        asyncio.run(apublish_many([("nowhere", "1"), (f"{stream}.a", "2")]))
    assert payloads(stream, 1, 501) == [b"0", b"2"]


def test_those_of_many_that_no_stream_takes_are_told_apart(
    nats_server: NatsServer, stream: str
) -> None:
    with pytest.raises(ExceptionGroup, match="1 of 3 messages were not stored") as caught:
        publish_many([(f"{stream}.a", "1"), ("nowhere", "2"), (f"{stream}.a", "3")])
    [error] = caught.value.exceptions
    assert type(error) is NoStreamResponse
    assert isinstance(caught.value, NotAllStored)
    assert caught.value.failed == {1: error}
    assert {number: ack.seq for number, ack in caught.value.stored.items()} == {0: 1, 2: 2}
    assert error.__notes__ == ["This was message 1, to 'nowhere'."]
    assert payloads(stream, 1, 2) == [b"1", b"3"]


def test_a_full_stream_is_an_error_of_publishing_with_the_words_of_the_server(
    nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    name = fresh("full")
    add_stream(name, max_msgs=1, discard="new")
    publish(f"{name}.a", b"")
    with pytest.raises(PublishError, match="maximum messages exceeded") as caught:
        publish(f"{name}.a", b"")
    assert isinstance(caught.value, StreamFull | ServiceUnavailable)
    assert (caught.value.code, caught.value.err_code) == (503, 10077)
    with pytest.raises(PublishError) as of_many:
        publish_many([(f"{name}.a", b"")])
    assert isinstance(of_many.value, NotAllStored)
    assert type(of_many.value.failed[0]) is StreamFull


@pytest.mark.parametrize(
    "data",
    [
        {"x": float("nan")},
        [float("-inf")],
        "\ud800",
        {"x": "\ud800"},
        reduce(lambda inner, _: [inner], range(100_000), cast("list[Any]", [])),
    ],
    ids=["nan", "infinity", "half a character", "half a character inside", "too deep"],
)
def test_what_no_reader_understands_is_not_published(data: Any) -> None:
    with pytest.raises(Unserializable):
        publish("orders.created", data)
    with pytest.raises(Unserializable):
        publish_many([("orders.created", data)])


@pytest.mark.parametrize(
    "arguments",
    [{"subject": "orders.\ud800"}, {"headers": {"a": "\ud800"}}, {"msg_id": "\ud800"}],
    ids=["subject", "headers", "msg_id"],
)
def test_half_a_character_beside_the_data_is_an_invalid_message(arguments: Any) -> None:
    with pytest.raises(InvalidMessage, match="lone surrogate"):
        publish(**{"subject": "orders.created", "data": b"", **arguments})


@pytest.mark.parametrize(
    ("timeout", "kind"), [(None, TypeError), ("5", TypeError), (-1, ValueError)]
)
def test_a_timeout_that_is_none_is_named_before_anything_is_sent(timeout: Any, kind: Any) -> None:
    for call in (
        lambda: publish("orders.created", b"", timeout=timeout),
        lambda: asyncio.run(apublish("orders.created", b"", timeout=timeout)),
        lambda: publish_many([("orders.created", b"")], timeout=timeout),
        lambda: publish_on_commit("orders.created", b"", timeout=timeout),
    ):
        with pytest.raises(kind, match=r"^timeout must be a number of seconds"):
            call()


class InterruptedByTestError(Exception):
    """Error of a signal handler."""


@pytest.fixture
def interrupted() -> Iterator[threading.Timer]:
    """Once it is started, a signal comes soon, and its handler raises."""

    def interrupt(*_: object) -> None:
        raise InterruptedByTestError

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    yield timer
    timer.cancel()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("many", [False, True])
def test_a_signal_is_heard_while_a_confirmation_is_waited_for(
    nats_server: NatsServer,
    fresh: Callable[[str], str],
    interrupted: threading.Timer,
    many: bool,
) -> None:
    name = fresh("quiet")
    add_stream(name, no_ack=True)
    messages = [(f"{name}.a", b"")]
    interrupted.start()
    began = time.monotonic()
    with pytest.raises(InterruptedByTestError):
        publish_many(messages, timeout=30) if many else publish(*messages[0], timeout=30)
    assert time.monotonic() - began < 10  # it was 30 s


def test_many_messages_take_no_longer_than_their_timeout_while_the_server_hangs(
    own_server: NatsServer, settings: Settings
) -> None:
    settings.NATS_CONSUMER = {"connect_args": {"servers": own_server.url}}
    with pytest.raises(NoStreamResponse):
        publish("orders.created", b"")
    own_server.pause()
    began = time.monotonic()
    with pytest.raises(NotAllStored) as caught:
        publish_many([("orders.created", b"")] * 60_000, timeout=1)
    assert time.monotonic() - began < 20  # it was 1 s for each message that did not fit
    assert len(caught.value.failed) == 60_000
    assert "was not sent" in str(caught.value.failed[59_999])


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_event_loops_that_give_up_leave_no_files_behind(
    nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    name = fresh("quiet")
    add_stream(name, no_ack=True)

    async def view() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await apublish(f"{name}.a", b"")

    asyncio.run(view())
    before = open_files()
    for _ in range(30):
        asyncio.run(view())
    # Each of them had two.
    assert open_files() < before + 30


def test_a_process_that_only_publishes_logs_what_happens_to_its_connection(
    own_server: NatsServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.NATS_CONSUMER = {"connect_args": {"servers": own_server.url}}
    with pytest.raises(NoStreamResponse):
        publish("orders.created", b"")
    caplog.set_level("INFO", "nats_consumer")
    own_server.stop()
    eventually(lambda: "Lost the connection to NATS" in caplog.text)
    own_server.start()
    eventually(lambda: "Connected to NATS again" in caplog.text)


@pytest.mark.django_db(transaction=True)
def test_on_commit_publishes_what_was_committed_and_nothing_else(
    nats_server: NatsServer, stream: str
) -> None:
    order = {"number": 1}
    with transaction.atomic():
        publish_on_commit(f"{stream}.created", order)
        order["number"] = 2
        assert count(nats_server, stream) == 0
    with transaction.atomic():
        publish_on_commit(f"{stream}.created", {"number": 3})
        transaction.set_rollback(True)
    assert count(nats_server, stream) == 1
    assert payloads(stream, 1) == [b'{"number": 1}']


def test_threads_share_the_connection(nats_server: NatsServer, stream: str) -> None:
    before = nats_server.connections()
    threads = [threading.Thread(target=publish, args=(f"{stream}.n", str(n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(nats_server, stream) == 8
    assert nats_server.connections() <= before + 1


def _publish_from_child(subject: str, results: Any) -> None:
    results.put(publish(subject, "child").seq)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_publishes_on_a_connection_of_its_own(
    nats_server: NatsServer, stream: str, method: str
) -> None:
    publish(f"{stream}.n", "parent")
    context = multiprocessing.get_context(method)
    results = context.Queue()
    target = _publish_from_child if method == "fork" else _publish_from_spawned_child
    arguments = (
        (f"{stream}.n", results)
        if method == "fork"
        else (
            f"{stream}.n",
            results,
            nats_server.url,
        )
    )
    child = context.Process(target=target, args=arguments)
    child.start()
    assert results.get(timeout=20) == 2
    child.join(timeout=20)
    assert child.exitcode == 0
    assert publish(f"{stream}.n", "parent again").seq == 3


def _publish_from_sibling(stream: str, start: Any, results: Any) -> None:
    try:
        start.wait(20)
        for number in range(200):
            publish(f"{stream}.n", str(number))
        results.put("stored")
    except NoStreamResponse:
        results.put("refused")


def test_children_of_a_fork_do_not_get_each_others_confirmations(stream: str) -> None:
    publish(f"{stream}.n", "parent")
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(2), context.Queue()
    children = [
        context.Process(target=_publish_from_sibling, args=(name, start, results))
        for name in (stream, "nowhere")
    ]
    for child in children:
        child.start()
    assert {results.get(timeout=20) for _ in children} == {"stored", "refused"}
    for child in children:
        child.join(timeout=20)


def _publish_from_spawned_child(subject: str, results: Any, url: str) -> None:
    from django.conf import settings

    settings.configure(NATS_CONSUMER={"connect_args": {"servers": [url]}})
    _publish_from_child(subject, results)


@pytest.mark.parametrize("subject", ["orders.*", "orders.>", "orders..x", "two words", ""])
def test_a_pattern_is_no_subject_to_publish_to(stream: str, subject: str) -> None:
    with pytest.raises(InvalidMessage):
        publish(subject, "x")


def test_a_header_cannot_smuggle_another_one_in(stream: str) -> None:
    with pytest.raises(InvalidMessage, match="header"):
        publish(f"{stream}.x", "x", headers={"Trace": "abc\r\nNats-Rollup: all"})


def test_a_message_too_large_for_the_server_is_refused_before_it_is_sent(stream: str) -> None:
    with pytest.raises(PayloadTooLarge):
        publish(f"{stream}.x", b"x" * 2_000_000)


def test_a_message_too_large_for_the_stream_is_refused_and_the_next_one_stored(
    nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    name = fresh("shop")
    add_stream(name, max_msg_size=1000)
    with pytest.raises(ApiError, match="message size exceeds maximum allowed") as refused:
        publish(f"{name}.x", b"x" * 1001)
    assert refused.value.err_code == 10054
    publish(f"{name}.x", b"x" * 900)
    assert count(nats_server, name) == 1


def test_a_msg_id_is_stored_once_within_the_duplicate_window_and_again_after_it(
    nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    name = fresh("shop")
    add_stream(name, duplicate_window=1.0)
    first, second = (publish(f"{name}.x", "one", msg_id="one") for _ in range(2))
    assert (first.seq, first.duplicate, second.seq, second.duplicate) == (1, None, 1, True)
    eventually(lambda: not publish(f"{name}.x", "one", msg_id="one").duplicate)
    assert count(nats_server, name) == 2


def test_without_a_server_it_says_so_soon(settings: Any) -> None:
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": ["nats://127.0.0.1:1"], "connect_timeout": 0.3}
    }
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        publish("orders.created", "x")


def test_a_restarted_server_is_published_to_again(
    own_server: NatsServer, fresh: Callable[[str], str], settings: Any
) -> None:
    name = fresh("shop")
    settings.NATS_CONSUMER = {"connect_args": {"servers": [own_server.url]}}
    add_stream(name)
    assert publish(f"{name}.x", "before").seq == 1
    own_server.kill()
    # Whether or not the loss of the connection has been noticed yet.
    with pytest.raises((Unreachable, PublishTimeout)):
        publish(f"{name}.x", "meanwhile", timeout=0.5)
    own_server.start()
    # The unconfirmed message may have been sent when the connection was back.
    assert publish(f"{name}.x", "after", timeout=10.0).seq in (2, 3)
