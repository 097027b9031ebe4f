"""nats_consumer.contrib.sentry: events of the test kit's attempts, with a transport in memory."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sentry_sdk
from pytest_django import Settings
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from nats_consumer import (
    ErrorAckBehavior,
    JetstreamPullConsumer,
    Retry,
    publish,
)
from nats_consumer.checks import check_sentry
from nats_consumer.testing import Nats, capture_published
from tests import middleware

OURS = "nats_consumer.contrib.sentry"
CREATED = "orders.created"
BOTH = pytest.mark.parametrize("how", ["def", "async"])
Items = Callable[[str], list[dict[str, Any]]]


class _Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[tuple[str, dict[str, Any]]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            if item.payload.json is not None:
                self.items.append((str(item.headers["type"]), item.payload.json))


@pytest.fixture
def items(settings: Settings) -> Iterator[Items]:
    """`items("event")` are the events that Sentry was sent."""
    settings.NATS_CONSUMER = {
        "middleware": [f"{OURS}.isolate"],
        "publish_middleware": [f"{OURS}.continue_traces"],
    }
    transport = _Kept()
    before = sentry_sdk.get_global_scope().client
    sentry_sdk.init(
        dsn="https://key@localhost/1",
        transport=transport,
        traces_sample_rate=1.0,
        default_integrations=False,
        integrations=[_logging()],
    )
    yield lambda kind: [item for each, item in transport.items if each == kind]
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(before)


def _logging() -> Any:
    from sentry_sdk.integrations.logging import LoggingIntegration

    return LoggingIntegration(level=logging.INFO, event_level=logging.ERROR)


def orders(how: str, work: Callable[[Any], Any], **attributes: Any) -> Any:
    members = {
        "stream_name": "orders",
        "filter_subject": "orders.*",
        "handle_message": middleware.handler(how, work),
        "max_retries": 0,
        "handle_error_ack_behavior": ErrorAckBehavior.ACK,
    }
    return type("Orders", (JetstreamPullConsumer,), members | attributes)


def tag_and_fail(message: Any) -> Any:
    number = message.data.decode()
    sentry_sdk.set_tag(f"order_{number}", number)
    sentry_sdk.add_breadcrumb(message=f"looked at {number}")
    return ValueError(f"no {number}") if number != "2" else None


@BOTH
def test_the_event_of_a_failure_has_the_tags_of_its_message_alone(items: Items, how: str) -> None:
    with Nats([orders(how, tag_and_fail)]).in_use() as nats:
        for number in ("1", "2", "3"):
            publish(CREATED, number)
        nats.run()
    first, third = items("event")
    assert first["tags"] == {"order_1": "1"}
    assert third["tags"] == {"order_3": "3"}
    crumbs = [each["message"] for each in third["breadcrumbs"]["values"]]
    assert crumbs == ["looked at 3"]
    assert first["contexts"]["nats"]["sequence"] == 1
    assert first["contexts"]["nats"]["subject"] == CREATED


@BOTH
def test_a_failure_is_one_event_that_nobody_handled(items: Items, how: str) -> None:
    consumer = orders(how, lambda message: ValueError("no"), max_retries=1)
    with Nats([consumer]).in_use() as nats:
        publish(CREATED, "1")
        nats.run()
    (event,) = items("event")
    assert event["contexts"]["nats"]["attempt"] == 2
    (error,) = event["exception"]["values"]
    assert (error["type"], error["mechanism"]["handled"]) == ("ValueError", False)


@BOTH
def test_a_transaction_goes_on_from_the_publisher(items: Items, how: str) -> None:
    with Nats([orders(how, lambda message: None)]).in_use() as nats:
        with sentry_sdk.start_transaction(name="view") as view:
            publish(CREATED, "1")
        nats.run()
    process = items("transaction")[-1]
    trace = process["contexts"]["trace"]
    assert process["transaction"] == "Orders.handle_message"
    assert trace["op"] == "queue.process"
    assert trace["trace_id"] == view.trace_id
    assert trace["data"]["messaging.message.id"] == "orders:1"
    assert trace["data"]["messaging.message.retry.count"] == 0
    assert trace["status"] == "ok"


def test_an_outcome_that_the_handler_raises_is_no_error(items: Items) -> None:
    consumer = orders("def", lambda message: Retry(0) if message.attempt == 1 else None)
    with Nats([consumer]).in_use() as nats:
        publish(CREATED, "1")
        nats.run()
    assert items("event") == []
    assert {each["contexts"]["trace"]["status"] for each in items("transaction")} == {"ok"}


def test_sentry_without_the_middleware_is_w019(items: Items, settings: Settings) -> None:
    orders("def", print)
    assert check_sentry() == []
    settings.NATS_CONSUMER = {}
    (problem,) = check_sentry()
    assert problem.id == "nats_consumer.W019"
    assert f"{OURS}.isolate" in str(problem.hint)


def test_publishing_sends_the_trace(items: Items) -> None:
    with capture_published() as published, sentry_sdk.start_transaction(name="view") as view:
        publish(CREATED, "1")
    assert (published[0].headers or {})["sentry-trace"].startswith(view.trace_id)
    assert "baggage" in (published[0].headers or {})
