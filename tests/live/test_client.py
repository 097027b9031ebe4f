"""get_nats_client: publishing, requests, and what goes wrong."""

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from nats_consumer import get_nats_client
from nats_consumer.exceptions import (
    ApiError,
    ForkedProcess,
    NoStreamResponse,
    PayloadTooLarge,
    StreamNotFound,
    SubjectsOverlap,
)
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


async def test_context_manager_closes_it(nats_server: NatsServer) -> None:
    async with await get_nats_client() as client:
        assert client.is_connected
        assert not client.is_closed
        assert client.connected_url.endswith(nats_server.url.removeprefix("nats://"))
        assert client.max_payload == 1024 * 1024
    assert client.is_closed
    assert not client.is_connected


async def test_context_manager_closes_it_after_an_error_too() -> None:
    client = await get_nats_client()
    with pytest.raises(KeyError):
        async with client:
            raise KeyError("mine")
    assert client.is_closed


async def test_closing_twice_is_fine() -> None:
    client = await get_nats_client()
    await client.close()
    await client.close()
    assert client.is_closed


async def test_drain_sends_what_was_published_and_closes(stage: Stage) -> None:
    client = await get_nats_client()
    for number in range(100):
        await client.publish(f"{stage.stream}.created", b"%d" % number)
    await client.drain()
    assert client.is_closed
    # Stored by now: the server had it all before the connection ended.
    await becomes_true(lambda: stage.server.stream(stage.stream)["state"]["messages"] == 100)


async def test_flush_waits_until_the_server_has_it(stage: Stage) -> None:
    await stage.client.publish(f"{stage.stream}.created", b"one", headers={"A": "b"})
    await stage.client.flush()
    # It has it; a moment later it has stored it, too.
    await becomes_true(
        lambda: stage.server.stream(stage.stream)["state"]["messages"] == 1, within=2
    )


async def test_text_in_the_place_of_bytes_is_refused_with_what_to_do(stage: Stage) -> None:
    with pytest.raises(TypeError, match="payload must be bytes, not str: encode it"):
        await stage.client.publish(f"{stage.stream}.created", "one")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="payload must be bytes, not dict: encode it"):
        await stage.client.request("$JS.API.INFO", {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="payload must be bytes, not str: encode it"):
        await stage.client.jetstream().publish("orders.created", "one")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
async def test_what_holds_bytes_is_published_as_bytes(stage: Stage, kind: Any) -> None:
    subscription = await stage.client.subscribe(f"{stage.stream}_echo")
    await stage.client.publish(f"{stage.stream}_echo", kind(b"one"))
    assert (await subscription.next_msg(timeout=5)).data == b"one"


async def test_request_gets_the_answer(stage: Stage) -> None:
    reply = await stage.client.request("$JS.API.INFO", timeout=5)
    assert b"account_info_response" in reply.data


async def test_request_that_nobody_answers_is_an_error_at_once(stage: Stage) -> None:
    began = time.monotonic()
    with pytest.raises(Exception, match=f"{stage.stream}_nobody"):
        await stage.client.request(f"{stage.stream}_nobody", b"", timeout=20)
    assert time.monotonic() - began < 10


async def test_publish_says_where_the_message_is(stage: Stage) -> None:
    first = await stage.jetstream.publish(f"{stage.stream}.created", b"one")
    second = await stage.jetstream.publish(f"{stage.stream}.created", b"two")
    assert (first.stream, first.seq, first.duplicate, first.domain) == (
        stage.stream,
        1,
        None,
        None,
    )
    assert second.seq == 2


async def test_message_with_the_same_id_is_stored_once(stage: Stage) -> None:
    headers = {"Nats-Msg-Id": "order-7"}
    first = await stage.jetstream.publish(f"{stage.stream}.created", b"one", headers=headers)
    second = await stage.jetstream.publish(f"{stage.stream}.created", b"one", headers=headers)
    assert (second.seq, second.duplicate) == (first.seq, True)
    assert (await stage.jetstream.stream_info(stage.stream)).state.messages == 1


async def test_publishing_where_no_stream_is_names_the_subject(stage: Stage) -> None:
    subject = f"{stage.stream}_elsewhere.created"
    with pytest.raises(NoStreamResponse, match=subject):
        await stage.jetstream.publish(subject, b"one")


async def test_publishing_to_another_stream_than_expected_is_refused(stage: Stage) -> None:
    with pytest.raises(ApiError, match="expected stream does not match"):
        await stage.jetstream.publish(f"{stage.stream}.created", b"one", stream="another")
    assert (await stage.jetstream.stream_info(stage.stream)).state.messages == 0


async def test_payload_beyond_the_servers_limit_is_refused(stage: Stage) -> None:
    with pytest.raises(PayloadTooLarge):
        await stage.jetstream.publish(f"{stage.stream}.created", b"x" * (1024 * 1024 + 1))
    assert (await stage.jetstream.stream_info(stage.stream)).state.messages == 0


@pytest.mark.parametrize("subject", ["orders.*", "orders.>", "orders created", "orders..x", ""])
async def test_publishing_to_what_is_no_subject_is_refused(stage: Stage, subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        await stage.jetstream.publish(subject, b"one")


@pytest.mark.parametrize("headers", [{"A": "one\r\ntwo"}, {"A\n": "one"}, {"A:B": "one"}])
async def test_header_that_would_break_the_protocol_is_refused(
    stage: Stage, headers: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="header"):
        await stage.jetstream.publish(f"{stage.stream}.created", b"one", headers=headers)
    assert (await stage.jetstream.stream_info(stage.stream)).state.messages == 0


async def test_missing_stream_is_named(stage: Stage) -> None:
    missing = f"{stage.stream}_missing"
    with pytest.raises(StreamNotFound, match=f"{missing}.*--setup"):
        await stage.jetstream.stream_info(missing)


async def test_overlapping_subjects_name_the_other_stream(stage: Stage) -> None:
    with pytest.raises(SubjectsOverlap, match=stage.stream + "'"):
        await stage.jetstream.add_stream(
            name=f"{stage.stream}_two", subjects=[f"{stage.stream}.created"]
        )


async def test_argument_replaces_its_setting_and_keeps_the_others(nats_server: NatsServer) -> None:
    async with await get_nats_client(name="a publisher", ping_interval=5) as client:
        assert client.is_connected
        assert client.connected_url.endswith(nats_server.url.removeprefix("nats://"))


async def test_client_works_in_the_next_event_loop_too(stage: Stage) -> None:
    def in_a_loop_of_its_own() -> int:
        async def publish() -> int:
            async with await get_nats_client() as client:
                ack = await client.jetstream().publish(f"{stage.stream}.created", b"one")
                return ack.seq

        return asyncio.run(publish())

    assert [await asyncio.to_thread(in_a_loop_of_its_own) for _ in range(2)] == [1, 2]


async def test_the_statistics_count_messages_and_payloads_and_no_flush(stage: Stage) -> None:
    async with await get_nats_client() as client:
        subject = client.new_inbox()
        subscription = await client.subscribe(subject)
        for _ in range(3):
            await client.publish(subject, b"four", headers={"Trace": "abc"})
        await client.flush()
        assert await client.rtt() > 0
        await becomes_true(lambda: subscription.pending_msgs == 3)
        assert subscription.pending_bytes == 12
        assert client.stats == {
            "in_msgs": 3,
            "out_msgs": 3,
            "in_bytes": 12,
            "out_bytes": 12,
            "reconnects": 0,
            "errors_received": 0,
        }


@pytest.mark.parametrize("by", ["keyword", "evolve"])
async def test_a_mirror_becomes_a_stream_when_its_mirror_is_taken_away(
    stage: Stage, by: str
) -> None:
    name = f"{stage.stream}-copy"
    mirror = {"name": stage.stream}
    info = await stage.jetstream.add_stream(name=name, mirror=mirror, description="a copy")
    try:
        if by == "keyword":
            changed = await stage.jetstream.update_stream(name=name, mirror=None)
        else:
            changed = await stage.jetstream.update_stream(info.config.evolve(mirror=None))
        assert changed.config.mirror is None
        assert changed.config.description == "a copy"
    finally:
        await stage.jetstream.delete_stream(name)


async def test_a_subscription_that_its_limit_has_ended_can_be_given_up(stage: Stage) -> None:
    async with await get_nats_client() as client:
        subscription = await client.subscribe(subject := client.new_inbox())
        await subscription.unsubscribe(limit=1)
        await client.publish(subject, b"one")
        await subscription.next_msg(timeout=5)
        await subscription.unsubscribe()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_forked_child_can_neither_answer_a_message_nor_wait_for_one(stage: Stage) -> None:
    sub = await stage.client.subscribe(f"{stage.stream}.asked")
    await stage.client.publish(f"{stage.stream}.asked", b"?", reply=f"{stage.stream}.answers")
    message = await sub.next_msg(timeout=10)
    calls = [
        partial(message.respond, b"!"),
        sub._native.ready,
        partial(sub._native.unsubscribe, None),
    ]
    child = os.fork()
    if child == 0:
        os._exit(0 if all(map(is_refused, calls)) else 1)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def is_refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except ForkedProcess:
        return True
    return False
