"""Streams and stored messages: nats-py's client and ours do the same."""

from collections.abc import Callable
from typing import Any

import nats.js.api
import pytest

from nats_consumer import api
from tests.live.support.parity import Script, differences, fields, raised
from tests.servers import NatsServer

pytestmark = pytest.mark.anyio


async def streams_are_made_changed_and_deleted(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    made = await js.add_stream(
        name=name,
        subjects=[f"{name}.>"],
        storage="memory",
        max_age=3600,
        max_msgs=10,
        duplicate_window=60,
        allow_direct=True,
        metadata={"team": "shop"},
    )
    changed = await js.update_stream(made.config.evolve(max_msgs=20, description="more"))
    known = (
        "name",
        "subjects",
        "retention",
        "storage",
        "max_age",
        "max_msgs",
        "max_bytes",
        "max_msg_size",
        "max_msgs_per_subject",
        "num_replicas",
        "discard",
        "description",
        "duplicate_window",
        "allow_direct",
        "sealed",
        "compression",
    )
    found = await js.find_stream_name_by_subject(f"{name}.created")
    names = [info.config.name for info in await js.streams_info()]
    return {
        "made": fields(made.config, *known),
        "created": type(made.created).__name__,
        "changed": fields(changed.config, *known),
        "state": fields(
            changed.state,
            "messages",
            "bytes",
            "first_seq",
            "last_seq",
            "consumer_count",
            "num_deleted",
            "deleted",
            "subjects",
        ),
        "found": found,
        "is_listed": name in names,
        "purged": await js.purge_stream(name),
        "deleted": await js.delete_stream(name),
        "after": await raised(js.stream_info(name)),
    }


async def a_stream_is_given_as_a_config(nc: Any, name: str) -> Any:
    structs: Any = nats.js.api if isinstance(nc, nats.NATS) else api
    config = structs.StreamConfig(
        name=name,
        subjects=[f"{name}.>"],
        retention=structs.RetentionPolicy.WORK_QUEUE,
        storage=structs.StorageType.FILE,
        discard=structs.DiscardPolicy.NEW,
        compression=structs.StoreCompression.S2,
        republish=structs.RePublish(src=f"{name}.a", dest=f"{name}_copy.a"),
        consumer_limits=structs.StreamConsumerLimits(inactive_threshold=30, max_ack_pending=5),
    )
    info = await nc.jetstream().add_stream(config)
    return fields(
        info.config,
        "name",
        "retention",
        "storage",
        "discard",
        "compression",
        "republish",
        "consumer_limits",
    )


async def messages_are_stored_read_and_deleted(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"], allow_direct=True)
    acks = [
        await js.publish(f"{name}.a", b"one", headers={"Trace": "7", "Nats-Msg-Id": "first"}),
        await js.publish(f"{name}.a", b"one", headers={"Nats-Msg-Id": "first"}),
        await js.publish(f"{name}.b", b"two", stream=name),
        await js.publish(f"{name}.a", b""),
    ]
    known = ("subject", "seq", "sequence", "data", "headers", "header")
    direct = await js.get_msg(name, seq=1, direct=True)
    return {
        "acks": [fields(ack, "stream", "seq", "duplicate", "domain") for ack in acks],
        "by_seq": fields(await js.get_msg(name, seq=1), *known),
        "last": fields(await js.get_last_msg(name, f"{name}.a"), *known),
        "next": fields(await js.get_msg(name, seq=1, subject=f"{name}.b", next=True), *known),
        "direct": {**fields(direct, "subject", "seq", "data"), "trace": direct.headers["Trace"]},
        "deleted": await js.delete_msg(name, 1),
        "gone": await raised(js.get_msg(name, seq=1)),
        "gone_directly": "NotFoundError"
        in (await raised(js.get_msg(name, seq=1, direct=True)))["kinds"],
        "again": await raised(js.delete_msg(name, 1)),
        "subjects": (await js.stream_info(name, subjects_filter=">")).state.subjects,
        "kept": await js.purge_stream(name, subject=f"{name}.a", keep=1),
        "left": (await js.stream_info(name)).state.messages,
    }


async def what_the_server_refuses_is_the_same_error(nc: Any, name: str) -> Any:
    js = nc.jetstream()
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    expected = {"Nats-Expected-Last-Sequence": "41"}
    return {
        "no_stream_of_the_name": await raised(js.stream_info(f"{name}_no")),
        "no_stream_to_delete": await raised(js.delete_stream(f"{name}_no")),
        "no_stream_of_the_subject": await raised(js.publish(f"{name}_no.a", b"")),
        "not_found_by_subject": (await raised(js.find_stream_name_by_subject(f"{name}_no.a")))[
            "kinds"
        ],
        "another_stream": await raised(js.publish(f"{name}.a", b"", stream="another")),
        "another_sequence": await raised(js.publish(f"{name}.a", b"", headers=expected)),
        "overlap": await raised(js.add_stream(name=f"{name}_2", subjects=[f"{name}.a"])),
        "name_in_use": await raised(js.add_stream(name=name, subjects=["other." + name])),
        "no_consumer": await raised(js.consumer_info(name, "nobody")),
        "no_consumer_to_delete": await raised(js.delete_consumer(name, "nobody")),
        "bad_filter": await raised(js.add_consumer(name, durable_name="d", filter_subject="a..b")),
        "no_name": await raised(js.add_stream(subjects=["x"])),
        "bad_name": await raised(js.stream_info("a.b")),
        "nobody_answers": await raised(nc.request(f"{name}_no.a", b"", timeout=5)),
        "too_large": await raised(nc.publish(f"{name}.a", b"x" * (nc.max_payload + 1))),
        "no_subject": await raised(nc.publish("", b"")),
    }


async def the_account_is_known(nc: Any, name: str) -> Any:
    info = await nc.jetstream().account_info()
    return {"limits": info.limits, "has_level": info.api.level is not None, "tiers": info.tiers}


async def messages_are_published_in_the_background(nc: Any, name: str) -> Any:
    js = nc.jetstream(publish_async_max_pending=100)
    await js.add_stream(name=name, subjects=[f"{name}.>"])
    futures = [await js.publish_async(f"{name}.a", b"%d" % number) for number in range(250)]
    await js.publish_async_completed()
    refused = await js.publish_async(f"{name}_no.a", b"")
    return {
        "seqs": [(await future).seq for future in futures],
        "in_order": [(await js.get_msg(name, seq=seq)).data for seq in (1, 100, 250)],
        "pending": js.publish_async_pending() <= 1,
        "refused": await raised(refused),
    }


async def messages_are_published_with_options(nc: Any, name: str) -> Any:
    js = nc.jetstream(timeout=3, prefix="$JS.API")
    await js.add_stream(name=name, subjects=[f"{name}.>"], allow_msg_ttl=True)
    ack = await js.publish(
        f"{name}.a", b"one", timeout=5, stream=name, headers={"Trace": "7"}, msg_ttl=3600
    )
    later = await js.publish_async(f"{name}.a", stream=name, headers={"Trace": "8"}, msg_ttl=60)
    await js.publish_async_completed()
    return {
        "ack": fields(ack, "stream", "seq", "domain", "duplicate"),
        "first": (await js.get_msg(name, seq=1)).headers,
        "later": ((await later).seq, (await js.get_msg(name, seq=2)).headers),
        "empty": (await js.get_msg(name, seq=2)).data,
        "another": await raised(js.publish(f"{name}.a", stream="another")),
        "space": await raised(js.publish(f"{name}. a", b"")),
        "header": await raised(js.publish(f"{name}.a", b"", headers={"a b": "c"})),
        "too_large": await raised(js.publish(f"{name}.a", b"x" * (nc.max_payload + 1))),
        "nobody_there": (await raised(nc.jetstream(domain=name).account_info()))["kinds"],
        "closed_subject": (await raised(js.publish(f"{name}_no.a")))["kinds"],
    }


async def too_many_are_not_confirmed(nc: Any, name: str) -> Any:
    await nc.subscribe(f"{name}.silence")
    await nc.flush()
    js = nc.jetstream(publish_async_max_pending=1, timeout=1)
    waiting = await js.publish_async(f"{name}.silence")
    pending = js.publish_async_pending()
    refused = await raised(js.publish_async(f"{name}.silence", wait_stall=0.05))
    waiting.cancel()
    return pending, refused


@pytest.mark.parametrize(
    "run",
    [
        streams_are_made_changed_and_deleted,
        a_stream_is_given_as_a_config,
        messages_are_stored_read_and_deleted,
        what_the_server_refuses_is_the_same_error,
        the_account_is_known,
        messages_are_published_in_the_background,
        messages_are_published_with_options,
        too_many_are_not_confirmed,
    ],
    ids=lambda run: run.__name__,
)
async def test_both_clients_do_the_same(
    run: Script, nats_server: NatsServer, fresh: Callable[[str], str]
) -> None:
    assert await differences(run, nats_server, fresh) == []
