"""subscribe(ordered_consumer=True): each message once and in order, whatever happens to the
consumer, the server and the connection."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from pytest_django import Settings

from nats_consumer import _native, get_nats_client
from nats_consumer.api import ConsumerConfig
from nats_consumer.client import Client
from nats_consumer.client.jetstream.push import PushSubscription
from nats_consumer.exceptions import ConfigurationError, StreamNotFound, SubscriptionEnded
from tests.faults.support.proxy import DOWN, UP, Proxy
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.raw import publish_raw
from tests.live.support.stage import Stage
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

# For the tests in which only a heartbeat can show that something is wrong.
HEARTBEAT = 0.3


@pytest.fixture
def proxy(nats_server: NatsServer) -> Iterator[Proxy]:
    """A network between a client and the server, to break."""
    proxy = Proxy(nats_server.url)
    yield proxy
    proxy.close()


async def read(
    client: Client, stage: Stage, heartbeat: float | None = None, **options: Any
) -> PushSubscription:
    return await client.jetstream().subscribe(
        f"{stage.stream}.>", ordered_consumer=True, idle_heartbeat=heartbeat, **options
    )


async def numbers(sub: PushSubscription, count: int) -> list[int]:
    return [int((await sub.next_msg(timeout=20)).data) for _ in range(count)]


async def consumer_names(stage: Stage) -> list[str]:
    return [info.name for info in await stage.jetstream.consumers_info(stage.stream)]


async def test_a_stream_is_read_in_order_from_its_beginning_on(stage: Stage) -> None:
    await stage.publish(*range(50))
    sub = await read(stage.client, stage)
    first = await sub.next_msg(timeout=10)
    assert (first.data, first.metadata.sequence.stream) == (b"0", 1)
    assert await numbers(sub, 49) == list(range(1, 50))
    await stage.publish(50)
    assert await numbers(sub, 1) == [50]
    info = await sub.consumer_info()
    assert (info.config.ack_policy, info.config.max_deliver) == ("none", 1)
    assert (info.config.flow_control, info.config.mem_storage) == (True, True)


async def test_more_than_flow_control_lets_through_at_once_comes_too(stage: Stage) -> None:
    await asyncio.gather(*(stage.publish(b"%d" % n + b" " * 5000) for n in range(1000)))
    sub = await read(stage.client, stage)
    got = [(await sub.next_msg(timeout=20)).metadata.sequence.stream for _ in range(1000)]
    assert got == list(range(1, 1001))


async def test_a_deleted_consumer_is_recreated_behind_the_last_message(
    stage: Stage,
) -> None:
    sub = await read(stage.client, stage, HEARTBEAT)
    await stage.publish(*range(10))
    assert await numbers(sub, 10) == list(range(10))
    before = (await sub.consumer_info()).name
    await stage.jetstream.delete_consumer(stage.stream, before)
    await stage.publish(*range(10, 20))
    assert await numbers(sub, 10) == list(range(10, 20))
    assert (await sub.consumer_info()).name != before
    assert sub.delivered == 20


async def test_messages_lost_in_the_middle_are_read_again(stage: Stage, proxy: Proxy) -> None:
    async with await get_nats_client(servers=proxy.url) as client:
        sub = await read(client, stage)
        # Once: what is sent again passes.
        with proxy.dropping(DOWN, rb"^MSG .*\r\n3\r\n$") as dropped:
            await stage.publish(*range(6))
            await becomes_true(lambda: dropped)
        assert await numbers(sub, 6) == list(range(6))


async def test_a_heartbeat_tells_of_a_message_lost_at_the_end(stage: Stage, proxy: Proxy) -> None:
    async with await get_nats_client(servers=proxy.url) as client:
        sub = await read(client, stage, HEARTBEAT)
        with proxy.dropping(DOWN, rb"^MSG .*\r\n[34]\r\n$") as dropped:
            await stage.publish(*range(5))
            await becomes_true(lambda: len(dropped) >= 2)
        assert await numbers(sub, 5) == list(range(5))


async def test_nothing_is_missing_and_nothing_comes_twice_over_a_connection_that_is_cut(
    stage: Stage, proxy: Proxy
) -> None:
    async with await get_nats_client(servers=proxy.url, reconnect_time_wait=0.05) as client:
        sub = await read(client, stage)
        got = asyncio.create_task(numbers(sub, 300))
        for start in range(0, 300, 60):
            await stage.publish(*range(start, start + 60))
            proxy.cut_after(DOWN, 1000)
        assert await got == list(range(300))
        assert sub.pending_msgs == 0


async def test_what_is_published_while_the_connection_is_down_comes_afterwards(
    stage: Stage, proxy: Proxy
) -> None:
    async with await get_nats_client(servers=proxy.url, reconnect_time_wait=0.05) as client:
        sub = await read(client, stage)
        await stage.publish(0)
        assert await numbers(sub, 1) == [0]
        with proxy.down():
            await becomes_true(lambda: not client.is_connected)
            await stage.publish(*range(1, 20))
        assert await numbers(sub, 19) == list(range(1, 20))


async def test_a_connection_that_went_silent_is_noticed(stage: Stage, proxy: Proxy) -> None:
    async with await get_nats_client(servers=proxy.url) as client:
        sub = await read(client, stage, HEARTBEAT)
        await stage.publish(0)
        assert await numbers(sub, 1) == [0]
        proxy.half_open()
        await stage.publish(1, 2)
        assert await numbers(sub, 2) == [1, 2]


async def test_a_server_that_answers_late_delays_and_repeats_nothing(
    stage: Stage, proxy: Proxy
) -> None:
    async with await get_nats_client(servers=proxy.url) as client:
        sub = await read(client, stage, HEARTBEAT)
        with proxy.blackhole(UP):
            before = (await stage.jetstream.consumers_info(stage.stream))[0].name
            await stage.jetstream.delete_consumer(stage.stream, before)
            await stage.publish(*range(10))
        assert await numbers(sub, 10) == list(range(10))
        assert sub.pending_msgs == 0


async def test_a_server_that_restarts_is_read_on_from(
    own_server: NatsServer, settings: Settings, fresh: Callable[[str], str]
) -> None:
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": own_server.url, "reconnect_time_wait": 0.1}
    }
    name = fresh("orders")
    async with await get_nats_client() as client:
        js = client.jetstream()
        await js.add_stream(name=name, subjects=[f"{name}.>"])
        sub = await js.subscribe(f"{name}.>", ordered_consumer=True)
        for number in range(5):
            await js.publish(f"{name}.a", b"%d" % number)
        assert await numbers(sub, 5) == list(range(5))
        for restart in (own_server.restart, own_server.kill):
            await asyncio.to_thread(restart)
        await asyncio.to_thread(own_server.start)
        await becomes_true(lambda: client.is_connected)
        for number in range(5, 10):
            await js.publish(f"{name}.a", b"%d" % number)
        assert await numbers(sub, 5) == list(range(5, 10))
        assert sub.delivered == 10


async def test_what_does_not_fit_is_read_again_later(stage: Stage) -> None:
    await stage.publish(*range(100))
    sub = await read(stage.client, stage, HEARTBEAT, pending_msgs_limit=7)
    await becomes_true(lambda: sub.pending_msgs == 7)
    assert await numbers(sub, 100) == list(range(100))


async def test_what_begins_with_the_newest_message_keeps_its_beginning(stage: Stage) -> None:
    await stage.publish("old")
    sub = await read(stage.client, stage, HEARTBEAT, deliver_policy="new")
    await stage.jetstream.delete_consumer(stage.stream, (await sub.consumer_info()).name)
    await stage.publish(1, 2)
    assert await numbers(sub, 2) == [1, 2]


async def test_the_last_message_of_each_subject_comes_once(stage: Stage) -> None:
    for number, event in enumerate("abab"):
        await stage.publish(number, event=event)
    sub = await read(stage.client, stage, HEARTBEAT, deliver_policy="last_per_subject")
    assert await numbers(sub, 2) == [2, 3]
    await stage.jetstream.delete_consumer(stage.stream, (await sub.consumer_info()).name)
    # From here on each message counts, not only the last of its subject.
    await stage.publish(4, 5, event="c")
    assert await numbers(sub, 2) == [4, 5]


async def test_a_filter_and_a_beginning_of_a_config_are_kept(stage: Stage) -> None:
    for number in range(6):
        await stage.publish(number, event="even" if number % 2 == 0 else "odd")
    config = ConsumerConfig(deliver_policy="by_start_sequence", opt_start_seq=2)
    sub = await stage.jetstream.subscribe(
        f"{stage.stream}.even", ordered_consumer=True, config=config, idle_heartbeat=HEARTBEAT
    )
    assert await numbers(sub, 2) == [2, 4]
    await stage.jetstream.delete_consumer(stage.stream, (await sub.consumer_info()).name)
    await stage.publish(5, event="odd")
    await stage.publish(6, event="even")
    assert await numbers(sub, 1) == [6]


async def test_a_message_with_unreadable_headers_can_be_got_from_any_replica(stage: Stage) -> None:
    name = f"{stage.stream}-direct"
    await stage.jetstream.add_stream(name=name, subjects=[f"{name}.>"], allow_direct=True)
    publish_raw(stage.server, f"{name}.created", b"NATS/1.0\r\nTrace: \xff\r\n\r\n", b"1")
    message = await stage.client.jetstream(timeout=2).get_msg(name, 1, direct=True)
    assert (message.data, message.headers) == (b"1", {"Trace": "\ufffd"})


async def test_messages_with_unreadable_headers_come_without_the_unreadable_lines(
    stage: Stage,
) -> None:
    await stage.publish(0, event="a")
    for number in (b"1", b"2"):
        block = b"NATS/1.0\r\nTrace: \xff\r\nno colon\r\nTag: new\r\n\r\n"
        publish_raw(stage.server, f"{stage.stream}.b", block, number)
    await stage.publish(3, event="a")
    sub = await read(stage.client, stage)
    assert await numbers(sub, 1) == [0]
    message = await sub.next_msg(timeout=20)
    assert (message.data, message.headers) == (b"1", {"Trace": "\ufffd", "Tag": "new"})
    assert (message.metadata.sequence.stream, message.metadata.num_pending) == (2, 1)
    assert await numbers(sub, 2) == [2, 3]


async def test_a_filter_leaves_out_messages_with_unreadable_headers(stage: Stage) -> None:
    await stage.publish(0, event="a")
    for event, number in (("b", b"1"), ("a", b"2"), ("b", b"3")):
        publish_raw(
            stage.server, f"{stage.stream}.{event}", b"NATS/1.0\r\nno colon\r\n\r\n", number
        )
    await stage.publish(4, event="a")
    sub = await stage.client.jetstream().subscribe(f"{stage.stream}.a", ordered_consumer=True)
    assert await numbers(sub, 3) == [0, 2, 4]


async def test_messages_with_unreadable_headers_wait_for_room_and_count_for_a_limit(
    stage: Stage,
) -> None:
    await stage.publish(0, event="a")
    for number in range(1, 6):
        block = b"NATS/1.0\r\nno colon\r\n\r\n"
        publish_raw(stage.server, f"{stage.stream}.a", block, str(number).encode())
    sub = await read(stage.client, stage, pending_msgs_limit=2)
    assert await numbers(sub, 1) == [0]
    await becomes_true(lambda: sub.pending_msgs >= 2)
    await sub.unsubscribe(limit=4)
    assert [int(message.data) async for message in sub.messages] == [1, 2, 3]
    assert sub.has_ended


async def test_a_stream_can_begin_with_unreadable_headers(stage: Stage) -> None:
    publish_raw(stage.server, f"{stage.stream}.a", b"NATS/1.0\r\nno colon\r\n\r\n", b"1")
    await stage.publish(2, event="a")
    sub = await read(stage.client, stage)
    assert await numbers(sub, 2) == [1, 2]


async def test_a_callback_gets_the_messages_too(stage: Stage) -> None:
    got: list[int] = []

    async def callback(message: _native.Msg) -> None:
        got.append(int(message.data))

    sub = await read(stage.client, stage, HEARTBEAT, cb=callback)
    await stage.publish(*range(5))
    await becomes_true(lambda: len(got) == 5)
    await stage.jetstream.delete_consumer(stage.stream, (await sub.consumer_info()).name)
    await stage.publish(*range(5, 10))
    await becomes_true(lambda: len(got) == 10)
    assert got == list(range(10))


async def test_it_ends_and_takes_its_consumer_along(stage: Stage) -> None:
    sub = await read(stage.client, stage)
    assert len(await consumer_names(stage)) == 1
    await sub.unsubscribe()
    with pytest.raises(SubscriptionEnded):
        await sub.next_msg(timeout=10)
    await becomes_true(lambda: not stage.server.stream(stage.stream).get("consumer_detail"))


async def test_it_ends_after_that_number_of_messages(stage: Stage) -> None:
    await stage.publish(*range(10))
    sub = await read(stage.client, stage)
    await sub.unsubscribe(limit=3)
    assert [int(message.data) async for message in sub.messages][:3] == [0, 1, 2]
    assert sub.has_ended


async def test_a_stream_that_is_deleted_ends_it_with_an_error(stage: Stage) -> None:
    errors: list[Exception] = []

    async def error_cb(error: Exception) -> None:
        errors.append(error)

    async def callback(message: _native.Msg) -> None: ...

    async with await get_nats_client(error_cb=error_cb) as client:
        taken = await read(client, stage, HEARTBEAT)
        await read(client, stage, HEARTBEAT, cb=callback)
        await stage.jetstream.delete_stream(stage.stream)
        with pytest.raises(StreamNotFound, match=stage.stream):
            await taken.next_msg(timeout=20)
        with pytest.raises(nats.js.errors.NotFoundError):
            _ = [message async for message in taken.messages]
        await becomes_true(lambda: errors)
        assert isinstance(errors[0], StreamNotFound)


async def test_what_an_ordered_consumer_cannot_have_is_refused(stage: Stage) -> None:
    for options in ({"durable": "d"}, {"queue": "q"}, {"config": ConsumerConfig(durable_name="d")}):
        with pytest.raises(ConfigurationError, match="no durable name"):
            await read(stage.client, stage, **options)
    with pytest.raises(nats.js.errors.NotFoundError):
        await stage.jetstream.subscribe("x", stream=f"{stage.stream}_no", ordered_consumer=True)
    with pytest.raises(nats.errors.BadSubjectError):
        await stage.jetstream.subscribe("a..b", stream=stage.stream, ordered_consumer=True)
