"""CreateStream and CreateOrUpdateStream of a stream that exists, against a real server."""

from collections.abc import Callable
from typing import Any

import pytest

from nats_consumer import operations
from nats_consumer.exceptions import StreamMismatch
from tests.live.support.stage import Stage

pytestmark = pytest.mark.anyio


async def test_a_stream_that_is_declared_as_it_is_has_no_differences(
    stage: Stage, fresh: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    name = fresh("mails")
    fields: dict[str, Any] = {
        "subjects": [f"{name}.>"],
        "description": "what is to be sent",
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "compression": "s2",
        "max_age": 3600,
        "duplicate_window": 60.5,
        "max_msgs": 0,
        "max_bytes": -1,
        "num_replicas": 1,
        "allow_direct": True,
        "deny_delete": False,
        "metadata": {"team": "sales"},
        "republish": {"src": f"{name}.>", "dest": f"copies.{name}.>"},
        "consumer_limits": {"max_ack_pending": 500},
    }
    create = operations.CreateStream(name=name, **fields)
    await create.execute(stage.client)
    await create.execute(stage.client)
    assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == []
    await operations.CreateStream(name=name, max_age=7200).execute(stage.client)
    assert f"Stream {name} exists with max_age=3600.0 instead of 7200" in caplog.text


async def test_a_stream_cannot_move_to_another_storage(
    stage: Stage, fresh: Callable[[str], str]
) -> None:
    name = fresh("mails")
    await operations.CreateStream(name=name, subjects=[f"{name}.>"], storage="memory").execute(
        stage.client
    )
    with pytest.raises(StreamMismatch, match=f"'{name}'.*storage type.*nats_delete_stream {name}"):
        await operations.CreateOrUpdateStream(name=name, storage="file").execute(stage.client)
