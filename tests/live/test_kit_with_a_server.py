"""The test kit's real server, and its workers in a thread."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction

from nats_consumer import (
    JetstreamPullConsumer,
    apublish,
    operations,
    publish,
    publish_on_commit,
)
from nats_consumer.exceptions import StreamNotFound
from nats_consumer.testing.real import real_server, running
from tests.project.orders.models import Receipt
from tests.servers import NatsServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def server(own_server: NatsServer) -> Iterator[NatsServer]:
    """All connections are to it, and it is the only one: its streams are deleted."""
    with real_server(own_server.url):
        yield own_server


def consumer(act: Any = lambda message: None, **attributes: Any) -> Any:
    async def setup(self: Any) -> Any:
        return operations.CreateStream(name="orders", subjects=["orders.>"])

    def handle_message(self: Any, message: Any) -> None:
        act(message)

    members = {
        "stream_name": "orders",
        "filter_subject": "orders.>",
        "initial_retry_delay": 0.01,
        "setup": setup,
        "handle_message": handle_message,
        **attributes,
    }
    return type("Orders", (JetstreamPullConsumer,), members)


def threads() -> set[str]:
    return {each.name for each in threading.enumerate() if each.name == "nats_consumer-test"}


def test_a_worker_handles_what_the_test_publishes() -> None:
    orders = consumer(lambda message: Receipt.objects.create(number=int(message.data), thread=""))
    with running(orders) as worker:
        for number in range(3):
            publish("orders.created", str(number))
        worker.wait(handled=3)
    assert Receipt.objects.count() == 3
    assert threads() == set()


def test_a_failed_attempt_is_waited_for_until_one_succeeds() -> None:
    def fail_twice(message: Any) -> None:
        if message.attempt < 3:
            raise ValueError("no")

    with running(consumer(fail_twice)) as worker:
        publish("orders.created", b"")
        worker.wait(handled=1)


def test_a_test_says_when_its_outbox_is_relayed() -> None:
    with running(consumer()) as worker:
        publish_on_commit("orders.created", b"")
        call_command("nats_outbox", "relay", "--once")
        worker.wait(handled=1)


def test_what_was_not_handled_in_time_is_told() -> None:
    with running(consumer()) as worker, pytest.raises(AssertionError, match="0 of 1 messages"):
        worker.wait(handled=1, seconds=0.05)


def test_what_hinders_the_start_is_raised_and_nothing_runs_on() -> None:
    told = "stream `orders`, which Orders consumes, does not exist. Run the worker with --setup"
    with pytest.raises(StreamNotFound, match=told), running(consumer(setup=None)):
        pass
    assert threads() == set()


def test_a_worker_is_refused_in_a_transaction_that_its_threads_would_not_see() -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="in a transaction of 'default'"):
        running(consumer()).__enter__()


def test_each_test_begins_without_streams(own_server: NatsServer) -> None:
    with real_server(own_server.url):
        with running(consumer()) as worker:
            publish("orders.created", b"")
            worker.wait()
        assert set(own_server.streams()) == {"orders"}
    assert own_server.streams() == {}


@pytest.mark.anyio
async def test_async_code_publishes_to_it_too() -> None:
    with running(consumer()) as worker:
        await apublish("orders.created", b"")
        worker.wait()
