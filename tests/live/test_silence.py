"""Alive means consuming: each kind of silence is noticed, repaired and counted."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import NatsConsumer
from nats_consumer.client.subscription import Subscription
from tests.faults.support.proxy import DOWN, UP, Proxy
from tests.live.support.raw import publish_raw
from tests.live.support.stage import Stage, running
from tests.servers import NatsServer
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

ASKS = rb"^PUB \$JS\.API\.CONSUMER\.MSG\.NEXT\."
HEARTBEATS = rb"^HMSG .*NATS/1\.0 100 "

REFUSALS = [
    "409 Leadership Change",
    "409 Server Shutdown",
    "409 Exceeded MaxWaiting",
    "409 Exceeded MaxRequestBatch of 1",
    "409 Exceeded MaxRequestExpires of 1s",
    "409 Exceeded MaxRequestMaxBytes of 1",
    "409 Consumer Deleted",
    "409 Consumer is push based",
    "400 Bad Request",
    "423 Nats-Wrong-Pin-Id",
    "503",
]
ORDINARY = [
    "404 No Messages",
    "408 Request Timeout",
    "409 Batch Completed",
    "409 Message Size Exceeds MaxBytes",
]


@pytest.fixture
def proxy(stage: Stage, settings: Settings, nats_server: NatsServer) -> Iterator[Proxy]:
    """Return the proxy between the test's consumers and the server."""
    proxy = Proxy(nats_server.url)
    connect = {"servers": [proxy.url], "reconnect_time_wait": 0.05}
    settings.NATS_CONSUMER = {"connect_args": connect}
    yield proxy
    proxy.close()


def consumer(base: type[NatsConsumer]) -> type[NatsConsumer]:
    """It sends a request every second and expects a heartbeat three times as often."""

    class Orders(base):  # type: ignore[valid-type, misc]
        fetch_timeout = 1.0

        async def handle_message(self, message: Any) -> None: ...

    return Orders


async def consumes(stage: Stage, orders: NatsConsumer) -> None:
    """It handles what is published now."""
    before = orders.total_success_count
    await stage.publish(*range(20))
    await becomes_true(lambda: orders.total_success_count >= before + 20, within=20)
    await stage.everything_is_settled(type(orders))


async def questions(stage: Stage) -> Subscription:
    """The requests for messages that anybody sends for the consumer."""
    heard = await stage.client.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{stage.stream}.Orders")
    await stage.client.flush()
    return heard


def say(server: NatsServer, subject: str, status: str) -> None:
    """Send a status, as only a server does."""
    publish_raw(server, subject, f"NATS/1.0 {status}\r\n\r\n".encode(), b"")


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_request_that_is_refused_is_repaired_and_counted(
    stage: Stage, nats_server: NatsServer, status: str
) -> None:
    heard = await questions(stage)
    async with running(consumer(stage.Pull)) as orders:
        request = await heard.next_msg(5)
        say(nats_server, request.reply, status)
        await becomes_true(lambda: orders.total_repair_count == 1)
        await consumes(stage, orders)
        assert orders.is_running


@pytest.mark.parametrize("status", ORDINARY)
async def test_a_request_that_ends_in_order_is_no_repair(
    stage: Stage, nats_server: NatsServer, status: str
) -> None:
    heard = await questions(stage)
    async with running(consumer(stage.Pull)) as orders:
        request = await heard.next_msg(5)
        say(nats_server, request.reply, status)
        assert (await heard.next_msg(5)).reply != request.reply, "it asks again"
        await consumes(stage, orders)
        assert orders.total_repair_count == 0


async def test_missed_heartbeats_are_noticed_and_counted(stage: Stage, proxy: Proxy) -> None:
    async with running(consumer(stage.Pull)) as orders:
        with proxy.dropping(DOWN, HEARTBEATS) as dropped:
            await becomes_true(lambda: orders.total_repair_count > 0)
        assert dropped
        await consumes(stage, orders)


async def test_a_pull_that_nobody_answers_is_noticed_and_repaired(
    stage: Stage, proxy: Proxy
) -> None:
    async with running(consumer(stage.Pull)) as orders:
        with proxy.dropping(UP, ASKS) as dropped:
            # Once by a new request, and once by binding the durable again.
            await becomes_true(lambda: orders.total_repair_count >= 2)
        assert len(dropped) >= 2
        await consumes(stage, orders)


async def test_a_push_subscription_that_the_server_does_not_know_is_renewed(
    stage: Stage, proxy: Proxy
) -> None:
    orders_class = consumer(stage.Push)
    async with running(orders_class):
        """Makes the durable."""
    deliver_subject = stage.consumer(orders_class)["config"]["deliver_subject"]
    pattern = rb"^SUB " + re.escape(deliver_subject).encode()
    with proxy.dropping(UP, pattern) as dropped:
        async with running(orders_class) as orders:
            await becomes_true(lambda: dropped)
            await stage.publish("waiting")
            assert orders.total_success_count == 0
            await becomes_true(lambda: len(dropped) > 1, within=30)
            assert orders.total_repair_count > 0
    async with running(orders_class) as orders:
        await consumes(stage, orders)


OUTAGES: dict[str, Callable[[Proxy], Any]] = {"cut": Proxy.cut, "half open": Proxy.half_open}


@pytest.mark.parametrize("kind", ["Pull", "Push"])
@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_connection_that_is_lost_is_opened_again_and_counted(
    stage: Stage, proxy: Proxy, kind: str, outage: str
) -> None:
    async with running(consumer(getattr(stage, kind))) as orders:
        await consumes(stage, orders)
        OUTAGES[outage](proxy)
        await becomes_true(lambda: orders.total_repair_count > 0, within=30)
        await becomes_true(lambda: orders.is_connected, within=30)
        await consumes(stage, orders)


async def test_consuming_without_a_fault_is_no_repair(stage: Stage, proxy: Proxy) -> None:
    async with running(consumer(stage.Pull)) as orders:
        heard = await questions(stage)
        for _ in range(3):
            await heard.next_msg(5)
        await consumes(stage, orders)
        assert orders.total_repair_count == 0
