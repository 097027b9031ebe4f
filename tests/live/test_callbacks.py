"""error_cb, disconnected_cb, reconnected_cb and closed_cb are called."""

import asyncio
from pathlib import Path

import nats.errors
import pytest
from pytest_django import Settings

from nats_consumer import get_nats_client
from nats_consumer.exceptions import Denied, InvalidCallback
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


class Heard:
    """Callbacks that note what they hear."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.errors: list[Exception] = []

    async def error_cb(self, error: Exception) -> None:
        self.errors.append(error)

    async def disconnected_cb(self) -> None:
        self.events.append("disconnected")

    async def reconnected_cb(self) -> None:
        self.events.append("reconnected")

    async def closed_cb(self) -> None:
        self.events.append("closed")

    @property
    def callbacks(self) -> dict[str, object]:
        names = ("error_cb", "disconnected_cb", "reconnected_cb", "closed_cb")
        return {name: getattr(self, name) for name in names}


async def test_an_outage_is_told_and_its_end(own_server: NatsServer, settings: Settings) -> None:
    heard = Heard()
    # From the settings too.
    settings.NATS_CONSUMER = {
        "connect_args": {
            "servers": own_server.url,
            "reconnect_time_wait": 0.1,
            **heard.callbacks,
        }
    }
    async with await get_nats_client() as client:
        await asyncio.to_thread(own_server.stop)
        await becomes_true(lambda: heard.events == ["disconnected"])
        assert client.is_reconnecting
        assert client.connected_url is None
        await asyncio.to_thread(own_server.start)
        await becomes_true(lambda: heard.events == ["disconnected", "reconnected"])
        assert client.is_connected
        assert client.stats["reconnects"] == 1
    assert heard.events[2:] == ["disconnected", "closed"]


async def test_close_returns_when_closed_cb_has(nats_server: NatsServer) -> None:
    heard = Heard()
    client = await get_nats_client(**heard.callbacks)
    await client.close()
    assert heard.events == ["disconnected", "closed"]
    await client.close()
    assert heard.events == ["disconnected", "closed"]


async def test_a_connection_that_gives_up_is_closed(
    own_server: NatsServer, settings: Settings
) -> None:
    heard = Heard()
    settings.NATS_CONSUMER = {"connect_args": {"servers": own_server.url}}
    client = await get_nats_client(
        max_reconnect_attempts=2, reconnect_time_wait=0.05, **heard.callbacks
    )
    await asyncio.to_thread(own_server.kill)
    await becomes_true(lambda: heard.events == ["disconnected", "closed"])
    assert client.is_closed
    with pytest.raises(nats.errors.ConnectionClosedError):
        await client.publish("anything", b"")


async def test_a_client_can_be_closed_while_the_server_is_gone(
    own_server: NatsServer, settings: Settings
) -> None:
    heard = Heard()
    settings.NATS_CONSUMER = {"connect_args": {"servers": own_server.url}}
    client = await get_nats_client(**heard.callbacks)
    sub = await client.subscribe("anything")
    waiting = asyncio.create_task(sub.next_msg(timeout=None))
    await asyncio.to_thread(own_server.kill)
    await becomes_true(lambda: client.is_reconnecting)
    await asyncio.wait_for(client.close(), 10)
    assert client.is_closed
    assert heard.events == ["disconnected", "closed"]
    assert heard.errors == []
    with pytest.raises(nats.errors.ConnectionClosedError):
        await asyncio.wait_for(waiting, 10)


async def test_a_closing_callback_may_close_again(nats_server: NatsServer) -> None:
    async def closed_cb() -> None:
        await client.close()

    client = await get_nats_client(closed_cb=closed_cb)
    await asyncio.wait_for(client.close(), 10)


async def test_what_the_server_refuses_is_told(tmp_path: Path, settings: Settings) -> None:
    config = tmp_path / "server.conf"
    config.write_text(
        "authorization: {users: [{user: shop, password: secret, "
        'permissions: {publish: {deny: ["private.>", "_INBOX.>"]}}}]}'
    )
    server = NatsServer(tmp_path, ["-c", str(config)])
    server.start()
    heard = Heard()
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": server.url, "user": "shop", "password": "secret"}
    }
    try:
        async with await get_nats_client(**heard.callbacks) as client:
            await client.publish("private.thing", b"")
            # A flush works although an inbox may not be published to.
            await client.flush(timeout=10)
            await becomes_true(lambda: heard.errors)
            assert isinstance(heard.errors[0], Denied)
            assert "private.thing" in str(heard.errors[0])
            assert client.last_error is not None
    finally:
        server.stop()


async def test_an_error_without_a_callback_is_logged(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def reconnected() -> None: ...

    async with await get_nats_client(reconnected_cb=reconnected) as client:
        await client.subscribe("overflow.unheard", pending_msgs_limit=1)
        for _ in range(5):
            await client.publish("overflow.unheard", b"")
        await becomes_true(lambda: "overflow.unheard" in caplog.text)


async def test_a_callback_that_is_no_coroutine_function_is_refused(
    nats_server: NatsServer,
) -> None:
    with pytest.raises(InvalidCallback, match="error_cb must be a coroutine function"):
        await get_nats_client(error_cb=print)
    with pytest.raises(nats.errors.InvalidCallbackTypeError):
        await get_nats_client(closed_cb=lambda: None)
