"""Subscriptions and fetching, where nats-py is no measure: cancelling, overflow, outages."""

import asyncio
import weakref
from collections.abc import Callable

import nats
import nats.errors
import nats.js.errors
import pytest
from pytest_django import Settings

from nats_consumer import _native, get_nats_client
from nats_consumer.client import Client
from nats_consumer.exceptions import (
    ConnectionClosed,
    ConsumerGone,
    FetchTimeout,
    InvalidCallback,
    MessageError,
    NatsConsumerError,
    SlowConsumer,
    SubscriptionEnded,
)
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


async def test_next_msg_that_was_cancelled_loses_nothing(stage: Stage) -> None:
    sub = await stage.client.subscribe(f"{stage.stream}.heard")
    waiting = asyncio.create_task(sub.next_msg(timeout=30))
    await asyncio.sleep(0)
    waiting.cancel()
    await stage.client.publish(f"{stage.stream}.heard", b"one")
    assert (await sub.next_msg(timeout=10)).data == b"one"


async def test_a_wait_without_a_limit_that_was_cancelled_leaves_nothing_behind(
    stage: Stage,
) -> None:
    sub = await stage.client.subscribe(f"{stage.stream}.heard")
    native = sub._native
    waiting = [native.ready() for _ in range(100)]
    left = [weakref.ref(each) for each in waiting]
    for each in waiting:
        each.cancel()
    del each
    waiting.clear()
    await becomes_true(lambda: not any(each() for each in left))
    await stage.client.publish(f"{stage.stream}.heard", b"one")
    assert (await sub.next_msg(timeout=10)).data == b"one"


async def test_fetch_that_was_cancelled_loses_nothing(stage: Stage) -> None:
    sub = await stage.jetstream.pull_subscribe(f"{stage.stream}.>", "billing")
    waiting = asyncio.create_task(sub.fetch(timeout=30))
    await becomes_true(lambda: stage.server.consumer(stage.stream, "billing")["num_waiting"] == 1)
    waiting.cancel()
    await stage.publish("one")
    await becomes_true(lambda: sub.pending_msgs == 1)
    (message,) = await sub.fetch(5, timeout=10)
    assert message.data == b"one"
    assert message.metadata.num_delivered == 1


async def test_two_fetches_at_once_share_the_messages(stage: Stage) -> None:
    sub = await stage.jetstream.pull_subscribe(f"{stage.stream}.>", "billing")
    both = asyncio.gather(sub.fetch(timeout=30), sub.fetch(timeout=30))
    await stage.publish("one", "two")
    messages = [message.data for batch in await both for message in batch]
    assert sorted(messages) == [b"one", b"two"]


async def test_a_fetch_of_many_messages_gets_all_of_them(stage: Stage) -> None:
    await asyncio.gather(*(stage.publish(number) for number in range(2000)))
    sub = await stage.jetstream.pull_subscribe(f"{stage.stream}.>", "billing")
    got: list[_native.Msg] = []
    while len(got) < 2000:
        batch = await sub.fetch(500, timeout=10)
        for message in batch[:-1]:
            message.ack()  # acts without an await
        await batch[-1].ack_sync(timeout=10)
        got += batch
    assert [message.metadata.sequence.stream for message in got] == list(range(1, 2001))
    assert (await sub.consumer_info()).num_ack_pending == 0


async def test_a_fetch_from_a_consumer_that_is_deleted_says_so(stage: Stage) -> None:
    sub = await stage.jetstream.pull_subscribe(f"{stage.stream}.>", "billing")
    waiting = asyncio.create_task(sub.fetch(timeout=30))
    await becomes_true(lambda: stage.server.consumer(stage.stream, "billing")["num_waiting"] == 1)
    await stage.jetstream.delete_consumer(stage.stream, "billing")
    with pytest.raises(ConsumerGone, match="billing"):
        await asyncio.wait_for(waiting, 10)
    with pytest.raises(nats.js.errors.NotFoundError):
        await sub.fetch(timeout=10)


async def test_nothing_can_be_fetched_after_unsubscribe(stage: Stage) -> None:
    sub = await stage.jetstream.pull_subscribe(f"{stage.stream}.>", "billing")
    await sub.unsubscribe()
    with pytest.raises(SubscriptionEnded):
        await sub.fetch(timeout=10)


@pytest.mark.parametrize(("batch", "seconds"), [(0, 5), (1, 0), (1, -1)])
async def test_a_fetch_of_nothing_is_refused(stage: Stage, batch: int, seconds: float) -> None:
    sub = await stage.jetstream.pull_subscribe(f"{stage.stream}.>", "billing")
    with pytest.raises(ValueError, match="must be"):
        await sub.fetch(batch, timeout=seconds)


async def test_a_heartbeat_does_not_end_a_fetch(stage: Stage) -> None:
    sub = await stage.jetstream.pull_subscribe(f"{stage.stream}.>", "billing")
    with pytest.raises(FetchTimeout):
        await sub.fetch(timeout=1, heartbeat=0.2)


async def test_an_existing_durable_keeps_its_configuration_and_position(stage: Stage) -> None:
    await stage.publish("one", "two")
    first = await stage.jetstream.pull_subscribe(f"{stage.stream}.>", "billing")
    await (await first.fetch())[0].ack_sync(timeout=10)
    second = await stage.jetstream.pull_subscribe(f"{stage.stream}.other", "billing")
    assert (await second.consumer_info()).config.filter_subject == f"{stage.stream}.>"
    assert [message.data for message in await second.fetch(10)] == [b"two"]


async def test_what_overflows_is_dropped_and_reported(nats_server: NatsServer) -> None:
    errors: list[Exception] = []

    async def error_cb(error: Exception) -> None:
        errors.append(error)

    async with await get_nats_client(error_cb=error_cb) as client:
        sub = await client.subscribe("overflow.here", pending_msgs_limit=10)
        for number in range(100):
            await client.publish("overflow.here", b"%d" % number)
        await client.flush()
        await becomes_true(lambda: errors)
        (error,) = errors
        assert isinstance(error, SlowConsumer)
        assert isinstance(error, nats.errors.SlowConsumerError)
        assert error.subject == "overflow.here"
        assert (sub.pending_msgs, sub.delivered) == (10, 10)
        assert client.last_error is error
        assert client.stats["errors_received"] == 1


async def test_an_error_of_a_callback_is_reported_and_the_next_message_comes(
    nats_server: NatsServer,
) -> None:
    errors: list[Exception] = []
    got: list[bytes] = []

    async def error_cb(error: Exception) -> None:
        errors.append(error)

    async def callback(message: _native.Msg) -> None:
        got.append(message.data)
        if message.data == b"bad":
            raise RuntimeError("not this one")

    async with await get_nats_client(error_cb=error_cb) as client:
        await client.subscribe("callbacks.here", cb=callback)
        for data in (b"bad", b"good"):
            await client.publish("callbacks.here", data)
        await becomes_true(lambda: got == [b"bad", b"good"])
    assert [str(error) for error in errors] == ["not this one"]


async def test_a_message_whose_callback_fails_is_not_acknowledged(stage: Stage) -> None:
    got: list[bytes] = []

    async def callback(message: _native.Msg) -> None:
        got.append(message.data)
        if len(got) == 1:
            raise RuntimeError("later")

    async def error_cb(error: Exception) -> None: ...

    async with await get_nats_client(error_cb=error_cb) as client:
        config = {"ack_wait": 0.3}
        js = client.jetstream()
        await js.add_consumer(
            stage.stream, durable_name="pushed", deliver_subject=client.new_inbox(), **config
        )
        await js.subscribe(f"{stage.stream}.>", durable="pushed", cb=callback)
        await stage.publish("one")
        await becomes_true(lambda: got == [b"one", b"one"])
        await becomes_true(
            lambda: stage.server.consumer(stage.stream, "pushed")["num_ack_pending"] == 0
        )


async def test_a_callback_that_settles_by_itself_is_left_alone(stage: Stage) -> None:
    async def callback(message: _native.Msg) -> None:
        await message.term()

    errors: list[Exception] = []

    async def error_cb(error: Exception) -> None:
        errors.append(error)

    async with await get_nats_client(error_cb=error_cb) as client:
        await client.jetstream().subscribe(f"{stage.stream}.>", durable="pushed", cb=callback)
        await stage.publish("one")
        await becomes_true(
            lambda: (
                stage.server.consumer(stage.stream, "pushed")["ack_floor"].get("stream_seq") == 1
            )
        )
    assert errors == []


async def test_a_second_subscriber_without_a_queue_is_refused(stage: Stage) -> None:
    await stage.jetstream.subscribe(f"{stage.stream}.>", durable="pushed")
    await stage.client.flush()
    with pytest.raises(NatsConsumerError, match="has a subscriber already"):
        await stage.jetstream.subscribe(f"{stage.stream}.>", durable="pushed")
    with pytest.raises(NatsConsumerError, match="queue"):
        await stage.jetstream.subscribe(f"{stage.stream}.>", "pushed")


async def test_a_callback_must_be_a_coroutine_function(stage: Stage) -> None:
    with pytest.raises(InvalidCallback):
        await stage.client.subscribe("anything", cb=print)  # type: ignore[arg-type]


async def test_next_msg_is_not_for_subscriptions_with_a_callback(stage: Stage) -> None:
    async def callback(message: _native.Msg) -> None: ...

    sub = await stage.client.subscribe("anything", cb=callback)
    with pytest.raises(NatsConsumerError, match="next_msg"):
        await sub.next_msg()
    with pytest.raises(NatsConsumerError, match="messages"):
        _ = sub.messages


async def test_a_message_without_a_reply_subject_cannot_be_answered(stage: Stage) -> None:
    sub = await stage.client.subscribe(f"{stage.stream}.heard")
    await stage.client.publish(f"{stage.stream}.heard", b"one")
    with pytest.raises(MessageError, match="no reply subject"):
        (await sub.next_msg(timeout=10)).respond(b"")


async def test_waiting_for_a_message_ends_with_the_connection(nats_server: NatsServer) -> None:
    client = await get_nats_client()
    sub = await client.subscribe("anything")
    waiting = asyncio.create_task(sub.next_msg(timeout=None))
    iterating = asyncio.create_task(_collect(client))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(waiting, 10)
    assert await asyncio.wait_for(iterating, 10) == []


async def _collect(client: Client) -> list[_native.Msg]:
    sub = await client.subscribe("anything")
    return [message async for message in sub.messages]


async def test_subscriptions_and_fetches_go_on_after_an_outage(
    own_server: NatsServer, settings: Settings, fresh: Callable[[str], str]
) -> None:
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": own_server.url, "reconnect_time_wait": 0.1}
    }
    name = fresh("orders")
    async with await get_nats_client() as client:
        js = client.jetstream()
        await js.add_stream(name=name, subjects=[f"{name}.>"])
        heard = await client.subscribe("heard.here")
        pulled = await js.pull_subscribe(f"{name}.>", "billing")
        waiting = asyncio.create_task(pulled.fetch(timeout=30))
        await asyncio.to_thread(own_server.restart)
        await becomes_true(lambda: client.is_connected)
        await client.publish("heard.here", b"one")
        assert (await heard.next_msg(timeout=10)).data == b"one"
        await js.publish(f"{name}.a", b"two")
        assert [message.data for message in await waiting] == [b"two"]
