"""nats_plan's marks for each field of a durable or a stream that somebody changed by hand, and the
server's own answer to them."""

import asyncio
import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from nats_consumer import JetstreamPullConsumer, Message, operations
from nats_consumer.declare import registry
from nats_consumer.exceptions import NatsConsumerError
from tests.live.support.stage import Stage

pytestmark = pytest.mark.anyio

SECOND = 10**9


@pytest.fixture(autouse=True)
def project(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project without the stage's own classes, which have no handler."""
    monkeypatch.setattr(registry, "_declared", {})


async def manage(command: str, *arguments: str) -> str:
    output = io.StringIO()
    await asyncio.to_thread(call_command, command, *arguments, stdout=output, no_color=True)
    return output.getvalue()


async def mark(name: str) -> str:
    """The mark of this stream or durable."""
    [plan] = json.loads(await manage("nats_plan", "--json"))["plans"]
    [found] = [each["mark"] for each in plan["objects"] if each["name"] == name]
    return str(found)


async def ask(stage: Stage, verb: str, request: dict[str, Any]) -> None:
    answer = await stage.client.request(f"$JS.API.{verb}", json.dumps(request).encode(), timeout=5)
    assert "error" not in json.loads(answer.data), answer.data


def declare(stage: Stage, *of_setup: operations.StreamOperation, **attributes: Any) -> None:
    """A consumer class of the stage's stream, with this setup()."""

    async def handle_message(self: Any, message: Message) -> None: ...

    body = {
        "stream_name": stage.stream,
        "filter_subject": f"{stage.stream}.>",
        "handle_message": handle_message,
        "setup": lambda _: list(of_setup),
        **attributes,
    }
    type("Billing", (JetstreamPullConsumer,), body)


# What a class does not declare is nobody's business: it stays as it is.
DURABLE = [
    ({"deliver_policy": "new"}, "="),
    ({"deliver_policy": "by_start_sequence", "opt_start_seq": 3}, "="),
    ({"deliver_policy": "by_start_time", "opt_start_time": "2026-01-01T00:00:00Z"}, "="),
    ({"ack_policy": "none"}, "x"),
    ({"ack_policy": "all"}, "x"),
    ({"replay_policy": "original"}, "="),
    ({"max_waiting": 5}, "="),
    ({"mem_storage": True}, "="),
    ({"deliver_subject": "there", "max_waiting": 0}, "x"),
    ({"filter_subject": "STREAM.paid"}, "~"),
    ({"filter_subject": ""}, "!"),
    ({"ack_wait": 45 * SECOND}, "~"),
    ({"max_ack_pending": 7}, "~"),
    ({"max_deliver": 3}, "~"),
    ({"max_deliver": 5, "backoff": [SECOND, 2 * SECOND]}, "~"),
    ({"headers_only": True}, "="),
    ({"inactive_threshold": 3600 * SECOND}, "~"),
    ({"metadata": {"team": "billing"}}, "="),
    ({"max_batch": 10}, "="),
    ({"num_replicas": 1}, "="),
    ({"priority_groups": ["a"], "priority_policy": "overflow"}, "="),
    ({"priority_groups": ["a"], "priority_policy": "pinned_client"}, "x"),
]


@pytest.mark.parametrize(("by_hand", "expected"), DURABLE, ids=lambda value: str(value)[:60])
async def test_a_field_of_a_durable_that_was_changed_by_hand_has_its_mark(
    stage: Stage, by_hand: dict[str, Any], expected: str
) -> None:
    declare(stage, max_ack_pending=50)
    await manage("nats_apply", "--yes")
    declared = stage.server.consumer(stage.stream, "Billing")["config"]
    given = json.loads(json.dumps(by_hand).replace("STREAM", stage.stream))
    await ask(stage, f"CONSUMER.DELETE.{stage.stream}.Billing", {})
    request = {"stream_name": stage.stream, "config": {**declared, **given}}
    await ask(stage, f"CONSUMER.DURABLE.CREATE.{stage.stream}.Billing", request)
    changed = stage.server.consumer(stage.stream, "Billing")["config"]
    assert await mark(f"{stage.stream}/Billing") == expected
    try:
        await manage("nats_apply", "--yes", "--allow-data-loss")
    except CommandError:
        assert expected == "x"
    is_mended = expected in ("~", "!")
    config = stage.server.consumer(stage.stream, "Billing")["config"]
    assert config == (declared if is_mended else changed)
    assert await mark(f"{stage.stream}/Billing") == ("=" if is_mended else expected)


# The stream by hand, the declaration, and the mark.
STREAM = [
    ({"storage": "memory"}, {"storage": "file"}, "x"),
    ({"retention": "workqueue"}, {"retention": "limits"}, "x"),
    ({"retention": "limits"}, {"retention": "workqueue"}, "x"),
    ({"retention": "limits"}, {"retention": "interest"}, "!"),
    ({"retention": "interest"}, {"retention": "limits"}, "~"),
    ({}, {"mirror": {"name": "origin"}, "subjects": None}, "x"),
    ({}, {"allow_msg_counter": True}, "x"),
    ({"allow_msg_counter": True}, {"allow_msg_counter": False}, "x"),
    ({}, {"persist_mode": "async"}, "x"),
    ({"deny_delete": True}, {"deny_delete": False}, "x"),
    ({}, {"deny_delete": True}, "~"),
    ({"deny_purge": True}, {"deny_purge": False}, "x"),
    ({}, {"deny_purge": True}, "~"),
    ({"allow_msg_ttl": True}, {"allow_msg_ttl": False}, "x"),
    ({}, {"allow_msg_ttl": True}, "~"),
    ({"allow_msg_schedules": True}, {"allow_msg_schedules": False}, "x"),
    ({}, {"allow_msg_schedules": True}, "~"),
    ({"max_age": 3600 * SECOND}, {"max_age": 7200}, "~"),
    ({"max_age": 7200 * SECOND}, {"max_age": 3600}, "!"),
    ({"max_msgs": 5}, {"max_msgs": 4}, "!"),
    ({"max_bytes": 5_000_000}, {"max_bytes": 4_000_000}, "!"),
    ({"max_msgs_per_subject": 5}, {"max_msgs_per_subject": 4}, "!"),
    ({"subjects": ["STREAM.>", "more.STREAM"]}, {}, "!"),
    ({"description": "by hand"}, {"description": "ours"}, "~"),
]


@pytest.mark.parametrize(
    ("by_hand", "declared", "expected"), STREAM, ids=lambda value: str(value)[:60]
)
async def test_a_field_of_a_stream_that_was_changed_by_hand_has_its_mark(
    stage: Stage, by_hand: dict[str, Any], declared: dict[str, Any], expected: str
) -> None:
    given = json.loads(json.dumps(by_hand).replace("STREAM", stage.stream))
    fields = {"name": stage.stream, "subjects": [f"{stage.stream}.>"]}
    await ask(stage, f"STREAM.DELETE.{stage.stream}", {})
    await ask(stage, f"STREAM.CREATE.{stage.stream}", {**fields, **given})
    operation: Any = operations.CreateOrUpdateStream(**{**fields, **declared})
    declare(stage, operation)
    assert await mark(stage.stream) == expected
    if expected == "x":
        with pytest.raises(NatsConsumerError):
            await operation.execute(stage.client)
    else:
        await operation.execute(stage.client)
    assert await mark(stage.stream) == ("x" if expected == "x" else "=")
