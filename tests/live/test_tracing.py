"""OpenTelemetry, Sentry and structlog in a worker."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import sentry_sdk
import structlog
from pytest_django import Settings
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from nats_consumer import ErrorAckBehavior
from tests.live.support.project import Project
from tests.live.support.stage import Stage, running

pytestmark = pytest.mark.anyio

BOTH = pytest.mark.parametrize("how", ["def", "async"])

TRACED = """
import json, threading
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from nats_consumer import JetstreamPullConsumer


class Lines(SpanExporter):
    def export(self, spans):
        with open("spans", "a") as file:
            file.writelines(each.to_json(indent=None) + "\\n" for each in spans)
        return SpanExportResult.SUCCESS


class Ends(SpanProcessor):
    def on_end(self, span):
        print("a span ended", flush=True)


provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(Lines(), schedule_delay_millis=3_600_000))
provider.add_span_processor(Ends())
trace.set_tracer_provider(provider)


class Orders(JetstreamPullConsumer):
    stream_name = "{stream}"
    filter_subject = "{stream}.*"
    concurrency = 2

    def handle_message(self, message):
        if message.data == b"stuck":
            print("stuck", flush=True)
            threading.Event().wait()
"""

MIDDLEWARE = """
NATS_CONSUMER["middleware"] = ["nats_consumer.contrib.opentelemetry.trace"]
"""


async def test_the_last_spans_of_a_drained_worker_arrive_although_a_thread_is_stuck(
    stage: Stage, make_project: Callable[..., Project]
) -> None:
    project = make_project(TRACED.format(stream=stage.stream))
    settings = (project.folder / "settings.py").read_text()
    project.write("settings.py", settings + MIDDLEWARE)
    worker = project.consume("--shutdown-timeout", "0.2")
    await stage.publish("stuck", "last")
    await asyncio.to_thread(worker.wait_for, "a span ended")
    await asyncio.to_thread(worker.wait_for, "stuck")
    spans = project.folder / "spans"
    assert not spans.exists()
    worker.interrupt()
    assert await asyncio.to_thread(worker.finish) == 0
    (span,) = [json.loads(line) for line in spans.read_text().splitlines()]
    assert span["name"] == f"process {stage.stream}.*"
    assert span["attributes"]["messaging.nats.outcome"] == "ack"


class _Kept(Transport):
    """Keeps what would be sent to Sentry."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            if item.headers["type"] == "event" and item.payload.json is not None:
                self.events.append(item.payload.json)


def one_by_one(stage: Stage, how: str, handle: Callable[[Any, Any], None]) -> Any:
    """A consumer that gives each message one attempt, one after the other."""

    async def ahandle(self: Any, message: Any) -> None:
        await asyncio.sleep(0)
        handle(self, message)

    members = {
        "handle_message": ahandle if how == "async" else handle,
        "concurrency": 1,
        "max_retries": 0,
        "handle_error_ack_behavior": ErrorAckBehavior.ACK,
    }
    return type("Orders", (stage.Pull,), members)


@BOTH
async def test_a_tag_is_with_the_event_of_its_message_and_with_no_other(
    stage: Stage, settings: Settings, how: str
) -> None:
    settings.NATS_CONSUMER = {
        **settings.NATS_CONSUMER,
        "middleware": ["nats_consumer.contrib.sentry.isolate"],
    }
    transport = _Kept()
    before = sentry_sdk.get_global_scope().client
    integration = LoggingIntegration(level=logging.INFO, event_level=logging.ERROR)
    sentry_sdk.init(
        dsn="https://key@localhost/1",
        transport=transport,
        default_integrations=False,
        integrations=[integration],
    )

    def handle(self: Any, message: Any) -> None:
        number = message.data.decode()
        sentry_sdk.set_tag(f"order_{number}", number)
        raise ValueError(number)

    orders = one_by_one(stage, how, handle)
    try:
        async with running(orders):
            await stage.publish("1", "2", "3")
            await stage.everything_is_settled(orders)
    finally:
        sentry_sdk.get_client().close(timeout=0)
        sentry_sdk.get_global_scope().set_client(before)
    assert [event["tags"] for event in transport.events] == [
        {"order_1": "1"},
        {"order_2": "2"},
        {"order_3": "3"},
    ]


@BOTH
async def test_what_structlog_binds_is_with_the_lines_of_its_message_and_with_no_other(
    stage: Stage, how: str
) -> None:
    bound: list[dict[str, Any]] = []
    reported: list[dict[str, Any]] = []

    class Reports(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                reported.append(structlog.contextvars.get_contextvars())

    def handle(self: Any, message: Any) -> None:
        number = message.data.decode()
        structlog.contextvars.bind_contextvars(**{f"order_{number}": number})
        bound.append(structlog.contextvars.get_contextvars())
        raise ValueError(number)

    orders = one_by_one(stage, how, handle)
    logger, reports = logging.getLogger("nats_consumer"), Reports()
    logger.addHandler(reports)
    try:
        async with running(orders):
            await stage.publish("1", "2", "3")
            await stage.everything_is_settled(orders)
    finally:
        logger.removeHandler(reports)
    assert bound == reported == [{"order_1": "1"}, {"order_2": "2"}, {"order_3": "3"}]
