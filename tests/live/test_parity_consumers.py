"""Consumers and subscriptions to streams: nats-py's client and ours do the same."""

import asyncio
from collections.abc import Callable
from typing import Any

import nats.aio.msg
import pytest

from tests.live.support.parity import Script, call, differences, fields, raised
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


async def consumers_are_made_changed_and_deleted(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    for number in range(3):
        await js.publish(f"{name}.a", b"%d" % number)
    info = await js.add_consumer(
        name,
        durable_name="billing",
        filter_subject=f"{name}.a",
        ack_wait=12.5,
        max_deliver=4,
        backoff=[1, 2.5],
        inactive_threshold=3600,
        metadata={"team": "shop"},
    )
    config = (
        "durable_name",
        "name",
        "filter_subject",
        "ack_policy",
        "max_deliver",
        "deliver_policy",
        "replay_policy",
        "backoff",
        "inactive_threshold",
        "max_ack_pending",
        "max_waiting",
        "ack_wait",
    )
    counts = (
        "name",
        "stream_name",
        "num_pending",
        "num_ack_pending",
        "num_redelivered",
        "num_waiting",
        "push_bound",
        "paused",
    )
    paused = await js.pause_consumer(name, "billing", "2099-01-01T00:00:00Z")
    resumed = await js.resume_consumer(name, "billing")
    return {
        "config": fields(info.config, *config),
        "counts": fields(await js.consumer_info(name, "billing"), *counts),
        "delivered": fields(info.delivered, "consumer_seq", "stream_seq"),
        "ack_floor": fields(info.ack_floor, "consumer_seq", "stream_seq"),
        "listed": [each.name for each in await js.consumers_info(name)],
        "listed_from": [each.name for each in await js.consumers_info(name, offset=1)],
        "paused": fields(paused, "paused", "pause_until"),
        "resumed": resumed.paused,
        "deleted": await js.delete_consumer(name, "billing"),
    }


async def messages_are_fetched(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    for number in range(7):
        await js.publish(f"{name}.a", b"%d" % number, headers={"Number": str(number)})
    sub = await js.pull_subscribe(f"{name}.a", "billing")
    first = await sub.fetch()
    two = await sub.fetch(2)
    rest = await sub.fetch(100, timeout=2)
    message = first[0]
    known = ("num_delivered", "num_pending", "stream", "consumer", "domain")
    seen = {
        "batches": [[m.data for m in batch] for batch in (first, two, rest)],
        "message": fields(message, "subject", "data", "headers", "header", "is_acked"),
        "metadata": fields(message.metadata, *known),
        "sequence": fields(message.metadata.sequence, "stream", "consumer"),
        "zone": str(message.metadata.timestamp.tzinfo),
        "reply": message.reply.startswith(f"$JS.ACK.{name}.billing.1.1.1."),
        "none": await raised(sub.fetch(timeout=0.3)),
        "none_of_many": await raised(sub.fetch(5, timeout=0.3)),
    }
    await message.in_progress()
    await message.ack()
    seen["twice"] = await raised(call(message.nak))
    confirmed = await two[0].ack_sync()
    seen["confirmed"] = confirmed.data
    await two[1].nak(delay=0.1)
    again = await sub.fetch(timeout=5)
    seen["again"] = [(m.data, m.metadata.num_delivered) for m in again]
    await again[0].term()
    for each in rest:
        await each.ack_sync(timeout=5)
    info = await sub.consumer_info()
    seen["info"] = fields(info, "num_ack_pending", "num_pending", "num_redelivered")
    seen["floor"] = info.ack_floor.stream_seq
    seen["flags"] = [m.is_acked for m in (message, *two, *again)]
    bound = await js.pull_subscribe_bind("billing", name)
    await js.publish(f"{name}.a", b"late")
    seen["bound"] = [m.data for m in await bound.fetch(5, timeout=0.5)]
    await sub.unsubscribe()
    return seen


async def a_fetch_waits_for_messages(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    sub = await js.pull_subscribe(f"{name}.>", stream=name)
    waiting = asyncio.create_task(sub.fetch(3, timeout=1.5))
    await asyncio.sleep(0.2)
    for number in range(2):
        await js.publish(f"{name}.a", b"%d" % number)
    return [m.data for m in await waiting]


async def a_consumer_pushes_to_a_callback(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    for number in range(5):
        await js.publish(f"{name}.a", b"%d" % number)
    got: list[bytes] = []
    done = asyncio.Event()

    async def callback(message: Any) -> None:
        got.append(message.data)
        if len(got) == 5:
            done.set()

    sub = await js.subscribe(f"{name}.a", durable="pushed", cb=callback)
    async with asyncio.timeout(10):
        await done.wait()
    for _ in range(500):
        info = await sub.consumer_info()
        if info.ack_floor.stream_seq == 5:
            break
        await asyncio.sleep(0.01)
    await sub.unsubscribe()
    return {
        "got": got,
        "acked": info.ack_floor.stream_seq,
        "pending": info.num_ack_pending,
        "config": fields(info.config, "ack_policy", "filter_subject", "durable_name"),
    }


async def a_consumer_pushes_to_be_taken(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    sub = await js.subscribe(f"{name}.>", manual_ack=True, deliver_policy="new")
    for number in range(3):
        await js.publish(f"{name}.a", b"%d" % number)
    messages = [await sub.next_msg(timeout=5) for _ in range(3)]
    for message in messages:
        await message.ack_sync()
    info = await sub.consumer_info()
    return {"got": [m.data for m in messages], "acked": info.ack_floor.stream_seq}


async def a_queue_shares_what_is_pushed(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    got: list[bytes] = []

    async def callback(message: Any) -> None:
        got.append(message.data)

    for _ in range(2):
        await js.subscribe(f"{name}.a", "workers", cb=callback)
    for number in range(20):
        await js.publish(f"{name}.a", b"%d" % number)
    await becomes_true(lambda: len(got) >= 20)
    config = (await js.consumer_info(name, "workers")).config
    return sorted(got), fields(config, "durable_name", "deliver_group")


async def heartbeats_and_flow_control_are_answered(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    sub = await js.subscribe(f"{name}.>", flow_control=True, idle_heartbeat=0.2)
    payload = b"x" * 10_000
    for _ in range(300):
        await js.publish(f"{name}.a", payload)
    got = 0
    while got < 300:
        await (await sub.next_msg(timeout=5)).ack()
        got += 1
    return got


async def a_consumer_is_reset(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    for number in range(5):
        await js.publish(f"{name}.a", b"%d" % number)
    sub = await js.pull_subscribe(f"{name}.a", "billing")
    for message in await sub.fetch(5):
        await message.ack_sync()
    to_two = await js.reset_consumer(name, "billing", seq=2)
    again = await sub.fetch(2)
    await again[0].ack_sync()
    on = await js.reset_consumer(name, "billing")
    return {
        "to_two": (to_two.reset_seq, to_two.info.name, to_two.info.num_ack_pending),
        "again": [message.data for message in again],
        "on": on.reset_seq,
        "missing": await raised(js.reset_consumer(name, "nobody")),
    }


async def a_stream_is_read_in_order(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    for number in range(5):
        await js.publish(f"{name}.{'ab'[number % 2]}", b"%d" % number, headers={"A": "b"})
    sub = await js.subscribe(f"{name}.a", ordered_consumer=True, headers_only=True)
    heads = [await sub.next_msg(timeout=5) for _ in range(3)]
    config = (await sub.consumer_info()).config
    got: list[bytes] = []

    async def callback(message: Any) -> None:
        got.append(message.data)

    await js.subscribe(f"{name}.>", ordered_consumer=True, cb=callback, deliver_policy="last")
    await js.publish(f"{name}.b", b"late")
    await becomes_true(lambda: len(got) == 2)
    names = ("ack_policy", "max_deliver", "idle_heartbeat", "flow_control", "mem_storage")
    return {
        "heads": [(m.data, m.headers, m.metadata.sequence.stream) for m in heads],
        "config": fields(config, "durable_name", "filter_subject", "num_replicas", *names),
        "got": got,
        "delivered": sub.delivered,
    }


async def what_exists_is_subscribed_to(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    config = {"deliver_subject": nc.new_inbox(), "ack_policy": "explicit"}
    info = await js.add_consumer(name, durable_name="pushed", **config)
    await js.publish(f"{name}.a", b"one")
    sub = await js.subscribe_bind(name, info.config, "pushed", manual_ack=True)
    message = await sub.next_msg(timeout=5)
    await message.ack_sync()
    await js.pull_subscribe(f"{name}.>", "pulled")
    await js.subscribe(f"{name}.>", queue="workers")
    await nc.flush()
    return {
        "data": message.data,
        "is_instance": isinstance(message, nats.aio.msg.Msg),
        "acked": (await sub.consumer_info()).ack_floor.stream_seq,
        "names": (message.metadata.stream, message.metadata.consumer),
        "another": await raised(js.subscribe(f"{name}.>", queue="one", durable="two")),
        "bound": await raised(js.subscribe(f"{name}.>", durable="pushed")),
        "no_queue": await raised(js.subscribe(f"{name}.>", durable="workers")),
        "no_group": await raised(js.subscribe(f"{name}.>", queue="pushed")),
        "no_stream": (await raised(js.subscribe(f"{name}_no.a")))["kinds"],
        "no_stream_to_pull": (await raised(js.pull_subscribe(f"{name}_no.a", "d")))["kinds"],
        "no_stream_named": await raised(js.pull_subscribe_bind("pulled")),
        "twice": await raised(_twice(sub)),
    }


async def _twice(sub: Any) -> Any:
    await sub.unsubscribe()
    await sub.unsubscribe()


@pytest.mark.parametrize(
    "run",
    [
        consumers_are_made_changed_and_deleted,
        messages_are_fetched,
        a_fetch_waits_for_messages,
        a_consumer_pushes_to_a_callback,
        a_consumer_pushes_to_be_taken,
        a_queue_shares_what_is_pushed,
        heartbeats_and_flow_control_are_answered,
        a_consumer_is_reset,
        a_stream_is_read_in_order,
        what_exists_is_subscribed_to,
    ],
    ids=lambda run: run.__name__,
)
async def test_both_clients_do_the_same(
    run: Script, nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    assert await differences(run, nats_server, fresh) == []
