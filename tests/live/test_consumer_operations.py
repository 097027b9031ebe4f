"""CreateConsumer and DeleteConsumer, against a real server."""

from datetime import UTC, datetime
from typing import Any

import pytest

from nats_consumer import operations
from nats_consumer.exceptions import StreamNotFound
from tests.live.support.stage import Stage, running

pytestmark = pytest.mark.anyio


def create(stage: Stage, **fields: Any) -> operations.CreateConsumer:
    return operations.CreateConsumer(stream=stage.stream, durable_name="billing", **fields)


async def test_a_consumer_is_created_with_the_fields_that_are_given(stage: Stage) -> None:
    fields: dict[str, Any] = {
        "filter_subjects": [f"{stage.stream}.created", f"{stage.stream}.shipped"],
        "ack_wait": 2.5,
        "deliver_policy": "by_start_time",
        "opt_start_time": datetime(2026, 1, 2, tzinfo=UTC),
        "max_ack_pending": 7,
        "backoff": [1, 2.5],
        "max_deliver": 3,
    }
    await create(stage, **fields).execute(nats_client=stage.client)
    config = stage.server.consumer(stage.stream, "billing")["config"]
    expected = {
        **fields,
        "ack_policy": "explicit",
        "opt_start_time": "2026-01-02T00:00:00Z",
        "backoff": [10**9, 2_500_000_000],
        # The server's own rule: with a backoff, its first entry is ack_wait.
        "ack_wait": 10**9,
    }
    assert {name: config[name] for name in expected} == expected


async def test_a_consumer_that_exists_is_left_as_it_is(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await create(stage, ack_wait=5).execute(stage.client)
    caplog.clear()
    await create(stage, ack_wait=5).execute(stage.client)
    assert [each for each in caplog.records if each.levelname == "WARNING"] == []
    await create(stage, ack_wait=6, max_ack_pending=7).execute(stage.client)
    assert "exists with a different ack_wait, max_ack_pending" in caplog.text
    config = stage.server.consumer(stage.stream, "billing")["config"]
    assert config["ack_wait"] == 5 * 10**9


async def test_a_consumer_needs_its_stream() -> None:
    missing = operations.CreateConsumer(stream="nobodys", durable_name="billing")
    with pytest.raises(StreamNotFound, match="'nobodys' does not exist"):
        await missing.execute()


async def test_a_consumer_is_deleted_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    delete = operations.DeleteConsumer(stage.stream, "billing")
    await create(stage).execute(stage.client)
    await delete.execute(stage.client)
    assert stage.server.stream(stage.stream)["state"]["consumer_count"] == 0
    assert "does not exist" not in caplog.text
    await delete.execute(stage.client)
    await operations.DeleteConsumer("nobodys", "billing").execute(stage.client)
    assert caplog.text.count("does not exist") == 2


def orders(stage: Stage, seen: list[str]) -> Any:
    """A consumer that notes the payloads."""

    async def handle_message(self: Any, message: Any) -> None:
        seen.append(message.data.decode())

    return type("Orders", (stage.Pull,), {"handle_message": handle_message})


async def test_a_class_takes_the_durable_that_was_made_for_it(stage: Stage) -> None:
    await operations.CreateConsumer(
        stream=stage.stream, durable_name="Orders", filter_subject=f"{stage.stream}.>"
    ).execute(stage.client)
    seen: list[str] = []
    consumer = orders(stage, seen)
    await stage.publish("one")
    async with running(consumer):
        await stage.everything_is_settled(consumer)
    assert seen == ["one"]
    assert stage.server.stream(stage.stream)["state"]["consumer_count"] == 1


async def test_undoing_keeps_a_consumer_that_something_was_delivered_to(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = orders(stage, [])
    await stage.publish("one")
    async with running(consumer):
        await stage.everything_is_settled(consumer)
    made = operations.CreateConsumer(stream=stage.stream, durable_name="Orders")
    await made.undo(stage.jetstream)
    assert "is in use, so it is kept with its position" in caplog.text
    assert stage.server.consumer(stage.stream, "Orders")["ack_floor"]["stream_seq"] == 1
