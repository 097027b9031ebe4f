"""The example that the package has always promised, with the real command."""

import signal
from collections.abc import Callable

import pytest

from tests.live.support.project import Project
from tests.servers import NatsServer
from tests.waiting import eventually

CONSUMERS = """
import json
import logging

from nats_consumer import ErrorAckBehavior, JetstreamPullConsumer, JetstreamPushConsumer, operations
from nats_consumer.handler import ConsumerHandler

logger = logging.getLogger(__name__)
EVENTS = ["created", "updated", "cancelled", "shipped"]


class OrderHandler(ConsumerHandler):
    def __init__(self):
        super().__init__([f"orders.{event}" for event in EVENTS])

    async def handle_created(self, message):
        logger.info("created %s", json.loads(message.data.decode())["id"])

    async def handle_updated(self, message):
        logger.info("updated %s", json.loads(message.data.decode())["id"])

    async def handle_cancelled(self, message):
        logger.info("cancelled %s", json.loads(message.data.decode())["id"])

    async def handle_shipped(self, message):
        logger.info("shipped %s", json.loads(message.data.decode())["id"])

    async def fallback_handle(self, msg, reason="unknown"):
        logger.error("unhandled %s (%s)", msg.subject, reason)
        await self.send_to_dlq(msg, reason)
        await msg.ack()


class OrderConsumer(JetstreamPushConsumer):
    stream_name = "orders"
    subjects = ["orders.created", "orders.updated", "orders.cancelled", "orders.shipped"]
    filter_subject = "orders.*"
    max_retries = 3
    initial_retry_delay = 1.0
    max_retry_delay = 60.0
    backoff_factor = 2.0
    handle_error_ack_behavior = ErrorAckBehavior.NAK

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.handler = OrderHandler()

    async def setup(self):
        return [
            operations.CreateStream(name=self.stream_name, subjects=self.subjects, storage="file"),
        ]

    async def handle_message(self, message):
        await self.handler.handle(message)

    async def handle_error(self, message, error, attempt):
        logger.error("gave up after %s attempts: %s", attempt, error)


class BatchOrderConsumer(JetstreamPullConsumer):
    stream_name = "orders"
    subjects = ["orders.created", "orders.updated", "orders.shipped"]
    filter_subject = "orders.*"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.handler = OrderHandler()

    async def handle_message(self, message):
        await self.handler.handle(message)
"""

PUBLISH = """
import asyncio
import json

from nats_consumer import get_nats_client


async def publish_messages():
    ns = await get_nats_client()
    js = ns.jetstream()
    for i in range(40):
        event = ["created", "updated", "cancelled", "shipped"][i % 4]
        await js.publish(f"orders.{event}", json.dumps({"id": i}).encode("utf-8"))
    await ns.close()


if __name__ == "__main__":
    asyncio.run(publish_messages())
"""

ARGUMENTS = [(), ("--event-loop", "uvloop")]


@pytest.fixture
def shop(make_project: Callable[..., Project], own_server: NatsServer) -> Project:
    project = make_project(CONSUMERS, own_server.url)
    project.write("publish.py", PUBLISH)
    return project


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=["asyncio", "uvloop"])
def test_both_consumers_handle_every_message_once(
    shop: Project, own_server: NatsServer, arguments: tuple[str, ...]
) -> None:
    worker = shop.consume("--setup", *arguments)
    worker.wait_for("OrderConsumer: consuming")
    worker.wait_for("BatchOrderConsumer: consuming")
    assert shop.run("publish.py").finish() == 0
    handled = worker.wait_for_lines("INFO shop.consumers: ", 80)
    worker.interrupt(signal.SIGTERM)
    assert worker.finish() == 0, worker.output
    words = {0: "created", 1: "updated", 2: "cancelled", 3: "shipped"}
    expected = [f"INFO shop.consumers: {words[i % 4]} {i}" for i in range(40)]
    assert sorted(handled) == sorted(2 * expected)
    for durable in ("OrderConsumer", "BatchOrderConsumer"):
        position = own_server.consumer("orders", durable)
        assert position["ack_floor"]["stream_seq"] == 40
        assert position["delivered"]["consumer_seq"] == 40
        assert position["num_redelivered"] == 0


def test_one_consumer_by_name_leaves_the_other_alone(shop: Project, own_server: NatsServer) -> None:
    worker = shop.consume("OrderConsumer", "--setup")
    worker.wait_for("OrderConsumer: consuming")
    assert shop.run("publish.py").finish() == 0
    worker.wait_for_lines("INFO shop.consumers: ", 40)
    worker.interrupt(signal.SIGINT)
    assert worker.finish() == 0, worker.output
    consumers = own_server.stream("orders")["consumer_detail"]
    assert [consumer["name"] for consumer in consumers] == ["OrderConsumer"]


def test_publishing_without_the_stream_is_an_error_that_names_the_subject(shop: Project) -> None:
    publisher = shop.run("publish.py")
    assert publisher.finish() != 0
    assert "orders.created" in publisher.output
    assert "NoStreamResponse" in publisher.output


def test_setup_may_run_again_and_keeps_what_is_there(shop: Project, own_server: NatsServer) -> None:
    for _ in range(2):
        worker = shop.consume("--setup")
        worker.wait_for("OrderConsumer: consuming")
        worker.wait_for("BatchOrderConsumer: consuming")
        assert shop.run("publish.py").finish() == 0
        worker.wait_for_lines("INFO shop.consumers: ", 80)
        worker.interrupt()
        assert worker.finish() == 0, worker.output
    assert own_server.stream("orders")["state"]["messages"] == 80
    eventually(lambda: own_server.consumer("orders", "OrderConsumer")["num_pending"] == 0)
