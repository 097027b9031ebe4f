"""Core NATS: nats-py's client and ours do the same."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import nats.aio.msg
import pytest

from nats_consumer import get_nats_client
from nats_consumer.client.events import Callbacks
from tests.live.support.parity import Script, call, differences, fields, raised
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


async def a_request_is_answered(nc: Any, name: str) -> Any:
    async def answer(message: Any) -> None:
        await message.respond(message.data.upper())

    sub = await nc.subscribe(f"{name}.upper", cb=answer)
    await nc.flush()
    reply = await nc.request(f"{name}.upper", b"hello", timeout=5)
    await sub.unsubscribe()
    await nc.flush()
    later = await raised(nc.request(f"{name}.upper", b"hello", timeout=5))
    return {"data": reply.data, "later": later}


async def a_request_that_nobody_answers_in_time(nc: Any, name: str) -> Any:
    await nc.subscribe(f"{name}.silence")
    await nc.flush()
    return await raised(nc.request(f"{name}.silence", b"", timeout=0.2))


async def messages_are_taken_one_by_one(nc: Any, name: str) -> Any:
    sub = await nc.subscribe(f"{name}.*")
    inbox = nc.new_inbox()
    await nc.publish(f"{name}.a", b"one", headers={"A": "b"})
    await nc.publish(f"{name}.b", b"two", reply=inbox)
    await nc.publish(f"{name}.b.c", b"not for us")
    await nc.flush()
    first = await sub.next_msg(timeout=5)
    before = sub.pending_msgs
    second = await sub.next_msg()
    return {
        "first": fields(first, "subject", "data", "reply", "headers"),
        "second": fields(second, "subject", "data", "headers"),
        "reply": second.reply == inbox and inbox.startswith("_INBOX."),
        "pending": (before, sub.pending_msgs, sub.delivered),
        "sub": (sub.subject, sub.queue),
        "none": await raised(sub.next_msg(timeout=0.1)),
        "no_stream": await raised(call(first.ack)),
        "metadata": await raised(_metadata(first)),
    }


async def _metadata(message: Any) -> Any:
    return message.metadata


async def messages_are_iterated_over(nc: Any, name: str) -> Any:
    sub = await nc.subscribe(f"{name}.>")
    await sub.unsubscribe(limit=3)
    for number in range(5):
        await nc.publish(f"{name}.a", b"%d" % number)
    got = [message.data async for message in sub.messages]
    return got, sub.delivered


async def a_queue_group_shares_messages(nc: Any, name: str) -> Any:
    got: list[bytes] = []

    async def callback(message: Any) -> None:
        got.append(message.data)

    for _ in range(3):
        await nc.subscribe(f"{name}.>", queue="workers", cb=callback)
    for number in range(30):
        await nc.publish(f"{name}.a", b"%d" % number)
    await nc.flush()
    await becomes_true(lambda: len(got) >= 30)
    return sorted(got)


async def a_drain_lets_callbacks_finish_and_closes(nc: Any, name: str) -> Any:
    got: list[bytes] = []

    async def callback(message: Any) -> None:
        await asyncio.sleep(0.001)
        got.append(message.data)

    await nc.subscribe(f"{name}.>", cb=callback)
    for number in range(50):
        await nc.publish(f"{name}.a", b"%d" % number)
    await nc.flush()
    await nc.drain()
    return {
        "got": got,
        "flags": (nc.is_closed, nc.is_connected, nc.is_reconnecting, nc.is_connecting),
        "drain": await raised(nc.drain()),
        "publish": await raised(nc.publish(f"{name}.a", b"")),
        "flush": await raised(nc.flush()),
        "subscribe": await raised(nc.subscribe(f"{name}.a")),
        "close": await raised(nc.close()),
    }


async def an_ended_subscription_refuses(nc: Any, name: str) -> Any:
    sub = await nc.subscribe(f"{name}.a")
    await sub.unsubscribe()
    return await raised(sub.unsubscribe()), await raised(sub.drain())


async def what_a_client_says_of_itself(nc: Any, name: str) -> Any:
    await nc.publish(f"{name}.a", b"12345")
    await nc.flush()
    return {
        "flags": (nc.is_connected, nc.is_closed, nc.is_reconnecting, nc.is_draining),
        "url": nc.connected_url.netloc,
        "port": nc.connected_url.port,
        "max_payload": nc.max_payload,
        "servers": [server.netloc for server in nc.servers],
        "server": [server.hostname for server in nc.servers],
        "discovered": nc.discovered_servers,
        "waiting": nc.pending_data_size,
        "inbox": nc.new_inbox() != nc.new_inbox(),
        "client_id": isinstance(nc.client_id, int),
        "version": nc.connected_server_version.major,
        "stats": sorted(nc.stats),
        "reconnects": nc.stats["reconnects"],
        "rtt": 0 < await nc.rtt() < 5,
        "last_error": nc.last_error,
    }


async def a_future_gets_the_first_message(nc: Any, name: str) -> Any:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    await nc.subscribe(f"{name}.a", future=future)
    for data in (b"one", b"two"):
        await nc.publish(f"{name}.a", data)
    await nc.flush()
    async with asyncio.timeout(5):
        return (await future).data


async def a_subscription_ends_after_as_many_messages_as_asked(nc: Any, name: str) -> Any:
    got: list[bytes] = []

    async def callback(message: Any) -> None:
        got.append(message.data)

    await nc.subscribe(f"{name}.a", cb=callback)
    await nc.subscribe(f"{name}.a", cb=callback, max_msgs=2)
    for number in range(4):
        await nc.publish(f"{name}.a", b"%d" % number)
    await nc.flush()
    await becomes_true(lambda: len(got) == 6)
    return sorted(got)


async def messages_are_those_of_nats_py(nc: Any, name: str) -> Any:
    one, two = await nc.subscribe(f"{name}.a"), await nc.subscribe(f"{name}.a")
    for _ in range(2):
        await nc.publish(f"{name}.a", b"", reply=nc.new_inbox())
    first, second, other = [await sub.next_msg(timeout=5) for sub in (one, one, two)]
    match first:
        case nats.aio.msg.Msg(data=data):
            matched = data
    return {
        "is_instance": [isinstance(each, nats.aio.msg.Msg) for each in (first, other)],
        "matched": matched,
        "empty": (first.data, first.headers, first.header),
        "sids": [type(first.sid) is int, first.sid == second.sid, first.sid == other.sid],
        "is_acked": (first.is_acked, first._ackd),
    }


async def callbacks_keep_messages_for_themselves(nc: Any, name: str) -> Any:
    async def callback(message: Any) -> None: ...

    sub = await nc.subscribe(f"{name}.a", queue="workers", cb=callback)
    return {
        "queue": sub.queue,
        "next_msg": await raised(sub.next_msg()),
        "messages": await raised(_messages(sub)),
        "no_coroutine": await raised(nc.subscribe(f"{name}.a", cb=print)),
    }


async def _messages(sub: Any) -> Any:
    return sub.messages


async def what_cannot_be_sent_is_refused(nc: Any, name: str) -> Any:
    header = {"Trace": "7"}
    await nc.subscribe(f"{name}.>")
    return {
        "empty": await raised(nc.publish("", b"")),
        "space": await raised(nc.publish(f"{name}. a", b"")),
        "reply": await raised(nc.publish(f"{name}.a", b"", reply="a b")),
        "header_name": await raised(nc.publish(f"{name}.a", b"", headers={"a b": "c"})),
        "sent": await raised(nc.publish(f"{name}.a", b"", headers=header)),
        "untouched": header,
        "listen_to_nothing": await raised(nc.subscribe("")),
        "listen_to_a_space": await raised(nc.subscribe("a b")),
        "listen_to_an_empty_token": await raised(nc.subscribe("a..b")),
        "listen_behind_the_end": await raised(nc.subscribe("a.>.b")),
        "queue": await raised(nc.subscribe(f"{name}.a", queue="a b")),
    }


async def what_a_client_did_is_counted(nc: Any, name: str) -> Any:
    sub = await nc.subscribe(f"{name}.a")
    for _ in range(3):
        await nc.publish(f"{name}.a", b"12345")
    for _ in range(3):
        await sub.next_msg(timeout=5)
    return {key: value >= 3 for key, value in nc.stats.items()}, sub.delivered


@pytest.mark.parametrize(
    "run",
    [
        a_request_is_answered,
        a_request_that_nobody_answers_in_time,
        messages_are_taken_one_by_one,
        messages_are_iterated_over,
        a_queue_group_shares_messages,
        a_drain_lets_callbacks_finish_and_closes,
        an_ended_subscription_refuses,
        what_a_client_says_of_itself,
        a_future_gets_the_first_message,
        a_subscription_ends_after_as_many_messages_as_asked,
        messages_are_those_of_nats_py,
        callbacks_keep_messages_for_themselves,
        what_cannot_be_sent_is_refused,
        what_a_client_did_is_counted,
    ],
    ids=lambda run: run.__name__,
)
async def test_both_clients_do_the_same(
    run: Script, nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    assert await differences(run, nats_server, fresh) == []


@pytest.mark.parametrize("name", [each.name for each in dataclasses.fields(Callbacks)])
async def test_a_callback_that_is_no_coroutine_function_is_the_same_error(
    name: str, nats_server: NatsServer
) -> None:
    theirs = await raised(nats.connect(nats_server.url, **{name: print}))
    assert await raised(get_nats_client(**{name: print})) == theirs
    assert theirs["kinds"] == ["InvalidCallbackTypeError"]
