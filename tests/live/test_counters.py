"""Counters of a running consumer."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import ErrorAckBehavior, JetstreamPullConsumer, get_nats_client
from tests.live.support.stage import Stage, running
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


async def test_counters_are_true_inside_each_handler(stage: Stage) -> None:
    seen = []

    class Orders(stage.Push):
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            seen.append((self.total_success_count, self.total_error_count))
            assert self.is_running
            assert self.is_connected
            if message.data == b"bad":
                raise ValueError("no")

    async with running(Orders):
        await stage.publish("good", "bad", "good", "bad", "good")
        await stage.everything_is_settled(Orders)
    assert seen == [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)]


async def test_failed_attempts_are_no_errors_until_the_last(stage: Stage) -> None:
    seen = []

    class Orders(stage.Pull):
        max_retries = 2
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            seen.append(self.total_error_count)
            raise ValueError("no")

    async with running(Orders) as orders:
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
        assert orders.total_error_count == 1
        assert orders.total_success_count == 0
    assert seen == [0, 0, 0]


async def test_it_is_neither_running_nor_connected_before_and_after(stage: Stage) -> None:
    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None: ...

    idle = Orders()
    assert not idle.is_running
    assert not idle.is_connected
    assert (idle.total_success_count, idle.total_error_count) == (0, 0)
    async with running(Orders) as orders:
        assert orders.is_running
        assert orders.is_connected
        await stage.publish("one")
        await stage.everything_is_settled(Orders)
    assert not orders.is_running
    assert not orders.is_connected
    assert orders.total_success_count == 1


async def test_connection_shows_when_the_server_is_gone_and_back(
    own_server: NatsServer, settings: Settings, fresh: Callable[[str], str]
) -> None:
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": own_server.url, "reconnect_time_wait": 0.05}
    }
    name = fresh("orders")
    seen = []

    class Orders(JetstreamPullConsumer):
        stream_name = name
        filter_subject = ">"

        async def handle_message(self, message: Any) -> None:
            seen.append(message.data)

    async with await get_nats_client() as client:
        await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    async with running(Orders) as orders:
        await asyncio.to_thread(own_server.kill)
        await becomes_true(lambda: not orders.is_connected)
        assert orders.is_running
        await becomes_true(lambda: orders.state == "unreachable")
        await asyncio.to_thread(own_server.start)
        await becomes_true(lambda: orders.is_connected, within=20)
        async with await get_nats_client() as client:
            await client.jetstream().publish(f"{name}.created", b"one")
        await becomes_true(lambda: seen == [b"one"], within=20)
        assert orders.total_success_count == 1
        assert orders.state == "consuming"
