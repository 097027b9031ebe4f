"""get_nats_client and its client when there is no server."""

import asyncio
import time

import pytest
from pytest_django import Settings

from nats_consumer import get_nats_client
from nats_consumer.exceptions import Unreachable
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


async def test_no_server_is_unreachable_after_connect_timeout(settings: Settings) -> None:
    # Port 9 is "discard": nobody listens there, and no nats-server would choose it.
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": "nats://127.0.0.1:9", "connect_timeout": 0.5}
    }
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        await get_nats_client()


async def test_publishing_while_disconnected_fails_fast(
    own_server: NatsServer, settings: Settings
) -> None:
    settings.NATS_CONSUMER = {"connect_args": {"servers": own_server.url}}
    async with await get_nats_client() as client:
        await asyncio.to_thread(own_server.kill)
        await becomes_true(lambda: not client.is_connected)
        began = time.monotonic()
        with pytest.raises(Unreachable):
            await client.request("orders.created", b"one", timeout=30)
        with pytest.raises(Unreachable):
            await client.jetstream().publish("orders.created", b"one", timeout=30)
        with pytest.raises(Unreachable):
            await client.publish("orders.created", b"one")
        assert time.monotonic() - began < 25
