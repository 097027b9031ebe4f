"""Declaring consumers, and what one says about itself."""

from abc import ABC, abstractmethod

import pytest

from nats_consumer import JetstreamPullConsumer, JetstreamPushConsumer, NatsConsumer
from nats_consumer.consumer import validate_stream_name
from nats_consumer.exceptions import ConfigurationError, ConsumerNotFound
from tests.unit.support.doubles import FakeConsumption


def test_a_consumer_is_found_by_its_class_name() -> None:
    class OrderConsumer(JetstreamPushConsumer):
        stream_name = "orders"

    assert NatsConsumer.get("OrderConsumer") is OrderConsumer


def test_no_names_are_all_consumers_in_their_order() -> None:
    class Second(JetstreamPushConsumer):
        stream_name = "orders"

    class First(JetstreamPullConsumer):
        stream_name = "orders"

    assert NatsConsumer.filter() == [Second, First]
    assert NatsConsumer.filter([]) == [Second, First]
    assert NatsConsumer.filter(["First"]) == [First]
    assert NatsConsumer.filter(["First", "Second", "First"]) == [Second, First]


def test_an_unknown_name_gets_the_known_ones() -> None:
    class OrderConsumer(JetstreamPushConsumer):
        stream_name = "orders"

    with pytest.raises(ConsumerNotFound, match="Did you mean 'OrderConsumer'") as caught:
        NatsConsumer.get("OrdersConsumer")
    assert isinstance(caught.value, KeyError)
    with pytest.raises(ConsumerNotFound, match="Registered: OrderConsumer"):
        NatsConsumer.filter(["Nothing"])


def test_a_base_class_without_a_stream_is_not_run() -> None:
    class Shared(JetstreamPushConsumer):
        max_retries = 5

    class OrderConsumer(Shared):
        stream_name = "orders"

    assert NatsConsumer.filter() == [OrderConsumer]
    with pytest.raises(ConsumerNotFound, match="Shared has no stream_name"):
        NatsConsumer.get("Shared")


def test_a_base_class_that_leaves_handling_to_its_heirs_is_not_run() -> None:
    class Shared(JetstreamPushConsumer):
        stream_name = "orders"

    assert NatsConsumer.filter() == [Shared]

    class OrderConsumer(Shared):
        async def handle_message(self, message: object) -> None: ...

    assert NatsConsumer.filter() == [OrderConsumer]
    with pytest.raises(ConsumerNotFound, match="Shared has no handle_message"):
        NatsConsumer.get("Shared")


def test_an_abstract_base_class_is_not_run() -> None:
    class Shared(JetstreamPushConsumer, ABC):
        stream_name = "orders"

        @abstractmethod
        async def handle_message(self, message: object) -> None: ...

    assert NatsConsumer.filter() == []
    with pytest.raises(ConsumerNotFound, match=r"Shared is abstract: .* implements handle_message"):
        NatsConsumer.get("Shared")

    class OrderConsumer(Shared):
        async def handle_message(self, message: object) -> None: ...

    assert NatsConsumer.filter() == [OrderConsumer]


def test_only_the_bare_name_of_two_consumers_is_ambiguous() -> None:
    def declare(module: str) -> type[NatsConsumer]:
        return type(
            "OrderConsumer",
            (JetstreamPushConsumer,),
            {"stream_name": "orders", "__module__": module},
        )

    ours, theirs = declare("tests.project.orders.consumers"), declare("billing.consumers")
    with pytest.raises(
        ConfigurationError,
        match=r"billing\.consumers\.OrderConsumer\. Write orders\.OrderConsumer or billing\.",
    ):
        NatsConsumer.get("OrderConsumer")
    assert NatsConsumer.get("orders.OrderConsumer") is ours
    assert NatsConsumer.get("billing.consumers.OrderConsumer") is theirs
    assert NatsConsumer.filter() == [ours, theirs]
    with pytest.raises(ConsumerNotFound, match=r"Registered: billing.*, orders\.OrderCons"):
        NatsConsumer.get("Nothing")


@pytest.mark.parametrize(
    ("name", "rule"), [("my orders", "cannot contain spaces"), ("orders.eu", "cannot contain dots")]
)
def test_a_bad_stream_name_is_refused_when_the_class_is_made(name: str, rule: str) -> None:
    with pytest.raises(ValueError, match=f"stream_name of OrderConsumer {rule}"):
        type("OrderConsumer", (JetstreamPushConsumer,), {"stream_name": name})


def test_a_consumer_that_never_ran_counts_nothing() -> None:
    consumer = JetstreamPushConsumer()
    assert (consumer.total_success_count, consumer.total_error_count) == (0, 0)
    assert not consumer.is_running
    assert not consumer.is_connected
    assert consumer.state == "stopped"


def test_the_counters_are_the_engines_at_any_moment() -> None:
    consumer = JetstreamPushConsumer("ignored", ignored=True)
    consumption = FakeConsumption(succeeded=3, exhausted=1)
    consumer._attach(consumption)
    assert (consumer.total_success_count, consumer.total_error_count) == (3, 1)
    assert consumer.is_running
    assert consumer.state == "consuming"
    consumption.counters()["succeeded"] = 4
    consumption.is_connected = False
    assert consumer.total_success_count == 4
    assert not consumer.is_connected


def test_the_counters_go_on_after_a_restart() -> None:
    consumer = JetstreamPushConsumer()
    consumer._attach(FakeConsumption(succeeded=3, exhausted=1))
    consumer._attach(FakeConsumption(succeeded=2))
    assert (consumer.total_success_count, consumer.total_error_count) == (5, 1)


def test_the_counters_can_be_set() -> None:
    class Orders(JetstreamPullConsumer):
        stream_name = "orders"

    orders = Orders()
    orders.total_success_count, orders.total_error_count = 3, 0
    assert (orders.total_success_count, orders.total_error_count) == (3, 0)


def test_a_stream_name_can_be_checked_as_by_the_earlier_packages() -> None:
    assert validate_stream_name("orders") == "orders"
    with pytest.raises(ValueError, match="spaces"):
        validate_stream_name("my orders")
