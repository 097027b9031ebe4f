"""Consumers that a project's own code runs: run(), start() and stop(), as in the older packages."""

import asyncio
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import NatsConsumer, get_nats_client
from nats_consumer.exceptions import ConfigurationError, StreamNotFound, WorkerError
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def server_of_the_stage(stage: Stage, settings: Settings) -> None:
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": [stage.server.url], "connect_timeout": 5},
        "shutdown_timeout": 5,
    }


class Noting(NatsConsumer):
    """Notes the payloads; "stop" stops the consumer from within, "hold" waits to be let go."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[str] = []
        self.let_go = asyncio.Event()

    async def handle_message(self, message: Any) -> None:
        text = message.data.decode()
        if text == "hold":
            self.seen.append("held")
            await self.let_go.wait()
        if text == "stop":
            await self.stop()
        self.seen.append(text)


@pytest.fixture(params=["Push", "Pull"])
def orders(request: pytest.FixtureRequest, stage: Stage) -> Any:
    return type("Orders", (Noting, getattr(stage, request.param)), {})


async def test_run_consumes_until_stop_is_called(stage: Stage, orders: Any) -> None:
    await stage.publish("one", "two")
    consumer = orders()
    run = asyncio.create_task(consumer.run())
    await becomes_true(lambda: consumer.seen == ["one", "two"])
    assert (consumer.is_running, consumer.is_connected) == (True, True)
    await consumer.stop()
    await asyncio.wait_for(run, 5)
    assert (consumer.is_running, consumer.is_connected) == (False, False)
    assert consumer.total_success_count == 2


async def test_start_returns_when_it_consumes_and_stop_lets_what_runs_finish(
    stage: Stage, orders: Any
) -> None:
    consumer = orders()
    await consumer.start()
    assert consumer.is_running
    await stage.publish("hold")
    await becomes_true(lambda: consumer.seen == ["held"])
    stop = asyncio.create_task(consumer.stop())
    await asyncio.sleep(0)
    assert not stop.done()
    consumer.let_go.set()
    await asyncio.wait_for(stop, 5)
    assert consumer.seen == ["held", "hold"]
    assert stage.consumer(orders)["num_ack_pending"] == 0


async def test_a_handler_may_stop_its_own_consumer(stage: Stage, orders: Any) -> None:
    consumer = orders()
    await stage.publish("stop")
    await asyncio.wait_for(consumer.run(), 10)
    assert consumer.seen == ["stop"]
    assert stage.consumer(orders)["num_ack_pending"] == 0


async def test_an_error_handler_may_stop_a_consumer_whose_handlers_block(
    stage: Stage, settings: Settings
) -> None:
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "shutdown_timeout": 60}

    class Orders(stage.Pull):  # type: ignore[name-defined, misc]
        max_retries = 0
        stopped = False

        def handle_message(self, message: Any) -> None:
            raise ValueError(message.subject)

        async def handle_error(self, message: Any, error: Exception, attempt: int) -> None:
            await self.stop()
            self.stopped = True

    consumer = Orders()
    await stage.publish("one")
    await asyncio.wait_for(consumer.run(), 10)
    assert consumer.stopped


async def test_a_consumer_can_be_run_again(stage: Stage, orders: Any) -> None:
    consumer = orders()
    for text in ("one", "two"):
        await consumer.start()
        await stage.publish(text)
        await becomes_true(lambda text=text: text in consumer.seen)
        await consumer.stop()
    assert consumer.seen == ["one", "two"]
    assert consumer.total_success_count == 2


async def test_run_that_is_cancelled_has_stopped_when_it_ends(stage: Stage, orders: Any) -> None:
    consumer = orders()
    run = asyncio.create_task(consumer.run())
    await becomes_true(lambda: consumer.is_running)
    run.cancel()
    await asyncio.wait({run}, timeout=10)
    assert run.cancelled()
    assert not consumer.is_running


async def test_stop_of_what_was_never_started_does_nothing(orders: Any) -> None:
    await orders().stop()


async def test_what_hinders_the_start_is_raised(stage: Stage, orders: Any) -> None:
    orders.stream_name = "nowhere"
    consumer = orders()
    for begin in (consumer.start, consumer.run):
        with pytest.raises(StreamNotFound, match="nowhere"):
            await asyncio.wait_for(begin(), 10)
    assert not consumer.is_running


async def test_a_second_start_is_refused(orders: Any) -> None:
    consumer = orders()
    await consumer.start()
    with pytest.raises(WorkerError, match="Orders is running already"):
        await consumer.start()
    await consumer.stop()


async def test_run_takes_the_batch_size_and_the_timeout_of_older_versions(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    orders: Any = type("Orders", (Noting, stage.Pull), {})
    consumer = orders()
    with caplog.at_level("INFO", "nats_consumer"):
        run = asyncio.create_task(consumer.run(batch_size=7, timeout=2))
        await becomes_true(lambda: consumer.is_running)
        await consumer.stop()
        await run
    assert "7 at a time" in caplog.text
    with pytest.raises(ConfigurationError, match="fetch_timeout must be a number of at least 1"):
        await orders().run(timeout=0.1)


async def test_stop_under_the_supervision_of_the_command_says_what_stops_it(
    orders: Any,
) -> None:
    async with running(orders) as consumer:
        with pytest.raises(WorkerError, match="SIGTERM"):
            await consumer.stop()


async def test_nats_client_is_one_connection_kept_until_the_consumer_stops(stage: Stage) -> None:
    clients: list[Any] = []

    class Orders(stage.Pull):  # type: ignore[name-defined, misc]
        async def handle_message(self, message: Any) -> None:
            client = await self.nats_client
            await client.publish("answers", message.data)
            clients.append(client)

    async with running(Orders):
        await stage.publish("one", "two", "three")
        await becomes_true(lambda: len(clients) == 3)
        assert clients[0].is_connected
    assert len(set(map(id, clients))) == 1
    assert clients[0].is_closed


async def test_a_client_that_was_given_is_used_and_stays_open(orders: Any) -> None:
    async with await get_nats_client() as client:
        consumer = orders(client)
        assert await consumer.nats_client is client
        await consumer.start()
        await consumer.stop()
        assert client.is_connected


async def test_stream_exists_asks_the_server(stage: Stage, orders: Any) -> None:
    assert await orders.stream_exists()
    assert not await type("Elsewhere", (orders,), {"stream_name": "nowhere"}).stream_exists()


async def test_message_id_has_both_sequences(stage: Stage) -> None:
    ids: list[str] = []

    class Orders(stage.Pull):  # type: ignore[name-defined, misc]
        filter_subject = f"{stage.stream}.created"

        async def handle_message(self, message: Any) -> None:
            ids.append(self.get_message_id(message))

    await stage.publish("one", event="other")
    await stage.publish("two")
    async with running(Orders):
        await becomes_true(lambda: ids)
    assert ids == ["1.2"]
