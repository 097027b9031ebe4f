"""Spans for attempts and for publishing, by OpenTelemetry's conventions for messaging.

Add `nats_consumer.contrib.opentelemetry.trace` to NATS_CONSUMER["middleware"], and
`nats_consumer.contrib.opentelemetry.trace_publishing` to "publish_middleware". Needs the extra
`opentelemetry`; the SDK and its exporter are yours."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core.signals import setting_changed
from django.utils.decorators import sync_and_async_middleware
from opentelemetry import context, propagate
from opentelemetry import trace as api
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from nats_consumer import settings
from nats_consumer.connect.resolve import only_server
from nats_consumer.current import current_attempt
from nats_consumer.message import Message
from nats_consumer.outcomes import raised_outcome
from nats_consumer.publish import Outgoing
from nats_consumer.publish.middleware import current_connection

__all__ = ["trace", "trace_publishing"]

# The conventions for messaging are in development: these names are those of 1.44.
SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
SYSTEM = "messaging.system"
OPERATION_TYPE = "messaging.operation.type"
OPERATION_NAME = "messaging.operation.name"
DESTINATION = "messaging.destination.name"
TEMPLATE = "messaging.destination.template"
GROUP = "messaging.consumer.group.name"
MESSAGE_ID = "messaging.message.id"
BODY_SIZE = "messaging.message.body.size"
BATCH_SIZE = "messaging.batch.message_count"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
# Ours.
STREAM = "messaging.nats.stream"
SEQUENCE = "messaging.nats.sequence"
ATTEMPT = "messaging.nats.attempt"
OUTCOME = "messaging.nats.outcome"

# A dead letter that was replayed: its trace ended long ago.
_REPLAYS = "Dlq-Replays"
_EVENT_TYPE = "Event-Type"
_FLUSH_MILLISECONDS = 5_000

_tracer = api.get_tracer("nats_consumer", schema_url=SCHEMA)


@sync_and_async_middleware
def trace(handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A span of the kind CONSUMER around each attempt, current in its handler.

    At the first attempt, the span of the publisher is its parent, and linked. Later attempts,
    replayed dead letters and batches begin a trace of their own, with a link to the publisher's.
    NATS_CONSUMER["trace_parent"] changes which attempts have that parent. The span of a failed
    attempt has the status ERROR and the exception. An outcome that the handler asked for is not an
    error."""
    belonging = settings.trace_parent()
    if iscoroutinefunction(handle):

        async def atraced(message: Any) -> Any:
            with _process(message, belonging):
                return await handle(message)

        return atraced

    def traced(message: Any) -> Any:
        with _process(message, belonging):
            return handle(message)

    return traced


def _flush() -> None:
    """Export the last spans, at the end of a drain."""
    force = getattr(api.get_tracer_provider(), "force_flush", None)
    if force is not None:
        force(_FLUSH_MILLISECONDS)


trace.flush = _flush  # type: ignore[attr-defined] # the worker calls it


@contextmanager
def trace_publishing(messages: list[Outgoing]) -> Iterator[None]:
    """A span around publishing, whose context goes into the headers of the messages. A message
    with a `traceparent` keeps it, and the span is linked to that."""
    links = [link for each in messages if (link := _link(_extracted(each.headers)))]
    kind = SpanKind.PRODUCER if len(messages) == 1 else SpanKind.CLIENT
    with _tracer.start_as_current_span(
        _send_name(messages),
        kind=kind,
        attributes={SYSTEM: "nats", OPERATION_TYPE: "send", OPERATION_NAME: "send"},
        links=links,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        if span.is_recording():
            span.set_attributes(_send_attributes(messages))
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        for each in messages:
            if isinstance(each.headers, dict) and "traceparent" not in each.headers:
                each.headers.update(carrier)
        try:
            yield
        except BaseException as error:
            _note_error(span, error)
            raise


@contextmanager
def _process(given: Message | list[Message], belonging: str) -> Iterator[None]:
    is_batch = isinstance(given, list)
    messages: list[Message] = given if isinstance(given, list) else [given]
    first = messages[0]
    origin = _extracted(first.headers)
    links = [_link(origin), *(_link(_extracted(each.headers)) for each in messages[1:])]
    # The baggage of the publisher is there in any case.
    is_child = not is_batch and _belongs(first, belonging)
    parent = origin if is_child else api.set_span_in_context(api.INVALID_SPAN, origin)
    token = context.attach(parent)
    try:
        with _tracer.start_as_current_span(
            _process_name(first),
            kind=SpanKind.CONSUMER,
            attributes={SYSTEM: "nats", OPERATION_TYPE: "process", OPERATION_NAME: "process"},
            links=[link for link in links if link],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            if span.is_recording():
                span.set_attributes(_batch(messages) if is_batch else _single(first))
            try:
                yield
            except BaseException as error:
                _note_failure(span, error)
                raise
            finally:
                _note_outcome(span)
    finally:
        context.detach(token)


def _belongs(message: Message, belonging: str) -> bool:
    """Whether this attempt has the publisher's span as its parent."""
    if belonging == "never" or _REPLAYS in (message.headers or {}):
        return False
    return belonging == "every" or message.attempt == 1


def _extracted(headers: Any) -> context.Context:
    """The context that the publisher has sent with the message."""
    if not headers or propagate.get_global_textmap().fields.isdisjoint(headers):
        return context.Context()
    return propagate.extract(headers, context.Context())


def _link(origin: context.Context) -> Link | None:
    found = api.get_current_span(origin).get_span_context()
    return Link(found) if found.is_valid else None


def _process_name(message: Message) -> str:
    attempt = current_attempt()
    where = attempt.about.pattern if attempt else None
    return f"process {where or message.metadata.stream}"


def _batch(messages: Sequence[Message]) -> dict[str, Any]:
    return _common(messages[0]) | {BATCH_SIZE: len(messages)}


def _single(message: Message) -> dict[str, Any]:
    place = message.metadata
    return _common(message) | {
        DESTINATION: message.subject,
        MESSAGE_ID: f"{place.stream}:{place.sequence.stream}",
        BODY_SIZE: len(message.data),
        SEQUENCE: place.sequence.stream,
        ATTEMPT: message.attempt,
    }


def _common(message: Message) -> dict[str, Any]:
    place, attempt = message.metadata, current_attempt()
    found: dict[str, Any] = {GROUP: place.consumer, STREAM: place.stream}
    if attempt is not None:
        found |= _server(attempt.about.connection)
        if attempt.about.pattern:
            found[TEMPLATE] = attempt.about.pattern
    return found


@cache
def _server(using: str) -> dict[str, Any]:
    """The attributes of the server; none, if it may be one of several."""
    server = only_server(using)
    return {} if server is None else {SERVER_ADDRESS: server[0], SERVER_PORT: server[1]}


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "NATS_CONSUMER":
        _server.cache_clear()


setting_changed.connect(_forget)


def _send_name(messages: Sequence[Outgoing]) -> str:
    # Not by subject, of which there are too many; an event has one name.
    kinds = {(each.headers or {}).get(_EVENT_TYPE) for each in messages}
    kind = kinds.pop() if len(kinds) == 1 else None
    return f"send {kind}" if kind else "send"


def _send_attributes(messages: Sequence[Outgoing]) -> dict[str, Any]:
    server = _server(current_connection())
    if len(messages) != 1:
        return server | {BATCH_SIZE: len(messages)}
    return server | {DESTINATION: str(messages[0].subject), BODY_SIZE: len(messages[0].data)}


def _note_failure(span: Span, error: BaseException) -> None:
    try:
        is_outcome = raised_outcome(error) is not None
    except RuntimeError:
        is_outcome = False
    if not is_outcome:
        _note_error(span, error)


def _note_error(span: Span, error: BaseException) -> None:
    if not span.is_recording():
        return
    kind = type(error)
    is_builtin = kind.__module__ == "builtins"
    name = kind.__qualname__ if is_builtin else f"{kind.__module__}.{kind.__qualname__}"
    span.set_attribute(ERROR_TYPE, name)
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def _note_outcome(span: Span) -> None:
    attempt = current_attempt()
    if attempt is not None and attempt.outcome and span.is_recording():
        span.set_attribute(OUTCOME, attempt.outcome)
