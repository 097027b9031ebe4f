"""nats_consumer.contrib.opentelemetry: spans of the test kit's attempts, in memory."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pytest_django import Settings

from nats_consumer import (
    Drop,
    JetstreamPullConsumer,
    apublish,
    publish,
    publish_many,
    publish_on_commit,
)
from nats_consumer.checks import check_settings
from nats_consumer.exceptions import Unreachable
from nats_consumer.testing import Nats, capture_published

OURS = "nats_consumer.contrib.opentelemetry"
CREATED = "orders.created"
BOTH = pytest.mark.parametrize("how", ["def", "async"])
Spans = Callable[[], list[ReadableSpan]]

_exporter = InMemorySpanExporter()
_tracer = trace.get_tracer("tests")


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    """The SDK's provider, which a process can have only once."""
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(_exporter))
    trace.set_tracer_provider(made)


@pytest.fixture
def spans(settings: Settings) -> Iterator[Spans]:
    """The finished spans, in the order of their ends."""
    settings.NATS_CONSUMER = {
        "middleware": [f"{OURS}.trace"],
        "publish_middleware": [f"{OURS}.trace_publishing"],
    }
    _exporter.clear()
    yield lambda: list(_exporter.get_finished_spans())
    _exporter.clear()


def orders(how: str, work: Callable[[Any], Any], **attributes: Any) -> Any:
    """A consumer that does `work` in a span of its own, as a database's driver does."""

    def handle(self: Any, message: Any) -> Any:
        with _tracer.start_as_current_span("SELECT"):
            answer = work(message)
            if isinstance(answer, BaseException):
                raise answer
            return answer

    async def ahandle(self: Any, message: Any) -> Any:
        return handle(self, message)

    members = {
        "stream_name": "orders",
        "filter_subject": "orders.*",
        "handle_message": ahandle if how == "async" else handle,
    }
    return type("Orders", (JetstreamPullConsumer,), members | attributes)


def named(spans: list[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [each for each in spans if each.name == name]


def one(spans: list[ReadableSpan], name: str) -> Any:
    (found,) = named(spans, name)
    return found


def links(span: Any) -> list[int]:
    return [each.context.span_id for each in span.links]


@BOTH
def test_a_view_its_message_and_its_handler_are_one_trace(spans: Spans, how: str) -> None:
    with Nats([orders(how, lambda message: None)]).in_use() as nats:
        with _tracer.start_as_current_span("view"):
            publish(CREATED, {"number": 1})
        nats.run()
    view, send = one(spans(), "view"), one(spans(), "send")
    process, select = one(spans(), "process orders.*"), one(spans(), "SELECT")
    assert send.parent.span_id == view.context.span_id
    assert process.parent.span_id == send.context.span_id
    assert select.parent.span_id == process.context.span_id
    assert len({each.context.trace_id for each in (view, send, process, select)}) == 1
    assert links(process) == [send.context.span_id]
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)


def test_a_span_has_the_attributes_of_the_conventions(spans: Spans) -> None:
    with Nats([orders("def", lambda message: None)]).in_use() as nats:
        publish(CREATED, "12345")
        nats.run()
    assert dict(one(spans(), "send").attributes) == {
        "messaging.system": "nats",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": CREATED,
        "messaging.message.body.size": 5,
        "server.address": "127.0.0.1",
        "server.port": 4222,
    }
    assert dict(one(spans(), "process orders.*").attributes) == {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": CREATED,
        "messaging.destination.template": "orders.*",
        "messaging.consumer.group.name": "Orders",
        "messaging.message.id": "orders:1",
        "messaging.message.body.size": 5,
        "messaging.nats.stream": "orders",
        "messaging.nats.sequence": 1,
        "messaging.nats.attempt": 1,
        "messaging.nats.outcome": "ack",
        "server.address": "127.0.0.1",
        "server.port": 4222,
    }
    assert one(spans(), "send").instrumentation_scope.schema_url.endswith("/1.44.0")


@BOTH
def test_a_later_attempt_has_a_trace_of_its_own_with_a_link(spans: Spans, how: str) -> None:
    fail_once = lambda message: ValueError("no") if message.attempt == 1 else None  # noqa: E731
    with Nats([orders(how, fail_once)]).in_use() as nats:
        publish(CREATED, "1")
        nats.run()
    send = one(spans(), "send")
    first, second = named(spans(), "process orders.*")
    assert first.context.trace_id == send.context.trace_id
    assert second.context.trace_id != send.context.trace_id
    assert second.parent is None
    assert links(second) == [send.context.span_id]
    assert first.status.status_code is StatusCode.ERROR
    assert first.attributes["error.type"] == "ValueError"
    assert first.attributes["messaging.nats.outcome"] == "retry"
    assert [event.name for event in first.events] == ["exception"]
    assert second.status.status_code is StatusCode.UNSET
    assert second.attributes["messaging.nats.attempt"] == 2


@pytest.mark.parametrize(("value", "children"), [("first", [1]), ("every", [1, 2]), ("never", [])])
def test_the_setting_says_which_attempts_belong_to_the_publishers_trace(
    spans: Spans, settings: Settings, value: str, children: list[int]
) -> None:
    settings.NATS_CONSUMER = settings.NATS_CONSUMER | {"trace_parent": value}
    fail_once = lambda message: ValueError("no") if message.attempt == 1 else None  # noqa: E731
    with Nats([orders("def", fail_once)]).in_use() as nats:
        publish(CREATED, "1")
        nats.run()
    send, attempts = one(spans(), "send"), named(spans(), "process orders.*")
    found = [each.attributes["messaging.nats.attempt"] for each in attempts if each.parent]
    assert found == children
    assert [links(each) for each in attempts] == [[send.context.span_id]] * 2


@pytest.mark.parametrize("value", ["link", True, ["first"], None])
def test_another_value_of_that_setting_is_refused(settings: Settings, value: object) -> None:
    settings.NATS_CONSUMER = {"trace_parent": value}
    assert 'NATS_CONSUMER["trace_parent"]' in str(check_settings())


def test_spans_name_the_server_of_their_connection(spans: Spans, settings: Settings) -> None:
    settings.NATS_CONSUMER = settings.NATS_CONSUMER | {
        "connect_args": {"servers": ["a.example", "b.example"]},
        "connections": {"analytics": {"servers": "tls://me:secret@c.example:4333"}},
    }
    consumer = orders("def", lambda message: None, connection="analytics")
    with Nats([consumer]).in_use() as nats:
        publish(CREATED, "1", using="analytics")
        publish_many([(CREATED, "2")], using="analytics")
        nats.run()
    named_server = {"server.address": "c.example", "server.port": 4333}
    for each in [*named(spans(), "send"), *named(spans(), "process orders.*")]:
        assert named_server.items() <= each.attributes.items()


def test_spans_name_no_server_where_it_may_be_one_of_several(
    spans: Spans, settings: Settings
) -> None:
    servers = {"connect_args": {"servers": ["a.example", "b.example"]}}
    settings.NATS_CONSUMER = settings.NATS_CONSUMER | servers
    with capture_published():
        publish(CREATED, "1")
    assert "server.address" not in one(spans(), "send").attributes


@BOTH
def test_an_outcome_that_the_handler_raises_is_no_error(spans: Spans, how: str) -> None:
    with Nats([orders(how, lambda message: Drop("old"))]).in_use() as nats:
        publish(CREATED, "1")
        nats.run()
    process = one(spans(), "process orders.*")
    assert process.status.status_code is StatusCode.UNSET
    assert process.attributes["messaging.nats.outcome"] == "drop"


def test_a_message_without_a_context_begins_a_trace(spans: Spans, settings: Settings) -> None:
    settings.NATS_CONSUMER = {"middleware": [f"{OURS}.trace"]}
    with Nats([orders("def", lambda message: None)]).in_use() as nats:
        publish(CREATED, "1")
        with _tracer.start_as_current_span("test"):
            nats.run()
    process = one(spans(), "process orders.*")
    assert process.parent is None
    assert not process.links


def test_a_header_of_the_caller_is_kept_and_linked(spans: Spans) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with capture_published() as published:
        publish(CREATED, "1", headers={"traceparent": given})
    assert (published[0].headers or {})["traceparent"] == given
    assert links(one(spans(), "send")) == [0xB7AD6B7169203331]


def test_a_replayed_dead_letter_is_linked_and_has_no_parent(spans: Spans) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": given, "Dlq-Replays": "1"}
    with Nats([orders("def", lambda message: None)]).in_use() as nats:
        publish(CREATED, "1", headers=headers)
        nats.run()
    process = one(spans(), "process orders.*")
    assert process.parent is None
    assert links(process) == [0xB7AD6B7169203331]


def test_many_messages_have_one_span(spans: Spans) -> None:
    with capture_published() as published:
        publish_many([(CREATED, "1"), (CREATED, "2")])
    send = one(spans(), "send")
    assert send.kind is SpanKind.CLIENT
    assert send.attributes["messaging.batch.message_count"] == 2
    span = f"{send.context.span_id:016x}"
    assert all(span in (each.headers or {})["traceparent"] for each in published)


@pytest.mark.anyio
async def test_publishing_in_async_code_has_a_span(spans: Spans) -> None:
    with capture_published() as published:
        await apublish(CREATED, "1")
    assert (
        f"{one(spans(), 'send').context.span_id:016x}"
        in (published[0].headers or {})["traceparent"]
    )


@pytest.mark.django_db(transaction=True)
def test_a_message_for_a_commit_belongs_to_the_span_of_the_call(spans: Spans) -> None:
    with capture_published() as published, transaction.atomic():
        with _tracer.start_as_current_span("view"):
            publish_on_commit(CREATED, "1")
        with _tracer.start_as_current_span("later"):
            assert published == []
    view, send = one(spans(), "view"), one(spans(), "send")
    assert send.parent.span_id == view.context.span_id
    assert f"{send.context.span_id:016x}" in (published[0].headers or {})["traceparent"]


def test_a_message_that_is_not_stored_is_an_error_of_its_span(spans: Spans) -> None:
    nats = Nats([orders("def", print)])
    with nats.in_use(), nats.down(), pytest.raises(Unreachable):
        publish(CREATED, "1")
    send = one(spans(), "send")
    assert send.status.status_code is StatusCode.ERROR
    assert send.attributes["error.type"].startswith("nats_consumer.exceptions.")


@BOTH
def test_a_batch_has_one_span_with_links(spans: Spans, how: str) -> None:
    def handle(self: Any, messages: list[Any]) -> None:
        raise ValueError("no")

    async def ahandle(self: Any, messages: list[Any]) -> None:
        raise ValueError("no")

    rows = orders(
        how, print, max_batch=2, max_retries=0, handle_batch=ahandle if how == "async" else handle
    )
    del rows.handle_message
    with Nats([rows]).in_use() as nats:
        publish(CREATED, "1")
        publish(CREATED, "2")
        nats.run()
    process = one(spans(), "process orders.*")
    assert process.parent is None
    assert links(process) == [each.context.span_id for each in named(spans(), "send")]
    assert process.attributes["messaging.batch.message_count"] == 2
    assert process.attributes["error.type"] == "ValueError"


def test_nothing_of_opentelemetry_is_imported_without_the_middleware() -> None:
    code = (
        "import sys, django; from django.conf import settings;"
        "settings.configure(INSTALLED_APPS=['nats_consumer']); django.setup();"
        "import nats_consumer.run.worker, nats_consumer.checks;"
        "print([each for each in sys.modules if each.startswith(('opentelemetry', 'sentry'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
