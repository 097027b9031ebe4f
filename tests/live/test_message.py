"""The message that a handler gets."""

import asyncio
import gc
from datetime import UTC, datetime, timedelta
from typing import Any

import nats.aio.msg
import pytest

from nats_consumer import _native
from nats_consumer.testing import FakeMessage
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


async def messages_of(stage: Stage, *payloads: bytes, **more: Any) -> list[Any]:
    """Publish the payloads and return the messages as a handler got them."""
    got: list[Any] = []

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            got.append(message)

    for payload in payloads:
        await stage.jetstream.publish(f"{stage.stream}.created", payload, **more)
    async with running(Orders):
        await becomes_true(lambda: len(got) == len(payloads))
    return got


async def test_it_is_as_it_was_published(stage: Stage) -> None:
    [message] = await messages_of(stage, b'{"id": 1}')
    assert message.data == b'{"id": 1}'
    assert message.subject == f"{stage.stream}.created"
    assert message.attempt == 1
    assert message.reply.startswith(f"$JS.ACK.{stage.stream}.Orders.1.1.1.")


async def test_it_is_an_instance_of_nats_pys_message(stage: Stage) -> None:
    [message] = await messages_of(stage, b"one")
    assert isinstance(message, nats.aio.msg.Msg)
    assert isinstance(message, _native.Message)
    assert type(message) is _native.Message
    fake = FakeMessage(b"one", subject="orders.created")
    assert isinstance(fake, nats.aio.msg.Msg)
    assert isinstance(fake, FakeMessage)


async def test_a_task_of_its_own_may_await_a_settlement(stage: Stage) -> None:
    settled: list[bool] = []

    class Orders(stage.Push):
        async def handle_message(self, message: Any) -> None:
            await asyncio.create_task(message.in_progress())
            await asyncio.gather(message.in_progress(), asyncio.create_task(message.ack()))
            settled.append(message.is_acked)

    await stage.publish("one")
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    assert settled == [True]


async def test_data_is_read_once(stage: Stage) -> None:
    [message] = await messages_of(stage, b"x" * 1000)
    assert message.data is message.data


async def test_headers_are_a_dict(stage: Stage) -> None:
    sent = {"Customer": "7", "X-Note": "two words: with a colon", "Accent": "é"}
    [message] = await messages_of(stage, b"one", headers=sent)
    assert message.headers == sent
    assert message.header is message.headers
    assert type(message.headers) is dict


async def test_without_headers_it_has_none(stage: Stage) -> None:
    [message] = await messages_of(stage, b"one")
    assert message.headers is None
    assert message.header is None


async def test_metadata_tells_where_it_is(stage: Stage) -> None:
    published = datetime.now(UTC)
    first, second = [each.metadata for each in await messages_of(stage, b"one", b"two")]
    assert (first.sequence.stream, first.sequence.consumer) == (1, 1)
    assert (second.sequence.stream, second.sequence.consumer) == (2, 2)
    assert (first.num_delivered, first.num_pending, second.num_pending) == (1, 1, 0)
    assert (first.stream, first.consumer, first.domain) == (stage.stream, "Orders", None)
    assert first.timestamp.tzinfo is UTC
    # The server's clock is ours: it runs on this machine.
    assert timedelta(0) <= first.timestamp - published < timedelta(minutes=1)
    assert first.timestamp <= second.timestamp


async def test_repr_of_the_metadata_names_message_delivery_and_attempt(stage: Stage) -> None:
    [message] = await messages_of(stage, b"hello")
    assert repr(message.metadata) == (
        f"<Metadata: message 1 of stream {stage.stream}, delivery 1 of consumer Orders, attempt 1, "
        "0 pending>"
    )
    assert repr(message.metadata.sequence) == "SequencePair(stream=1, consumer=1)"


async def test_repr_names_subject_size_and_attempt(stage: Stage) -> None:
    [message] = await messages_of(stage, b"12345")
    assert repr(message) == f"<Message {stage.stream}.created (5 bytes, attempt 1)>"


async def test_it_can_be_read_long_after_the_handler_returned(stage: Stage) -> None:
    messages = await messages_of(stage, *(b"%d" % n for n in range(300)), headers={"A": "b"})
    gc.collect()
    assert [int(message.data) for message in messages] == list(range(300))
    assert all(message.headers == {"A": "b"} for message in messages)
    assert [message.metadata.sequence.stream for message in messages] == list(range(1, 301))
    assert all(message.is_acked for message in messages)


async def test_kept_messages_do_not_hold_up_the_consumer(stage: Stage) -> None:
    kept = []

    class Orders(stage.Pull):
        concurrency = 2
        batch_size = 5
        max_ack_pending = 10

        async def handle_message(self, message: Any) -> None:
            kept.append(message)

    async with running(Orders) as orders:
        await stage.publish(*range(100))
        await stage.everything_is_settled(Orders)
        assert orders.total_success_count == 100
    assert len(kept) == 100


async def test_large_payload_arrives_whole(stage: Stage) -> None:
    payload = bytes(range(256)) * 4000
    [message] = await messages_of(stage, payload)
    assert message.data == payload
