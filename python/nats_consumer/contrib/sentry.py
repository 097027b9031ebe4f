"""Sentry: a scope for each attempt, and traces that go on from the publisher to the handler.

Add `nats_consumer.contrib.sentry.isolate` to NATS_CONSUMER["middleware"], and
`nats_consumer.contrib.sentry.continue_traces` to "publish_middleware". Needs the extra `sentry`.
Call sentry_sdk.init() in your settings, as for the web."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sentry_sdk
from asgiref.sync import iscoroutinefunction
from django.utils.decorators import sync_and_async_middleware
from sentry_sdk.tracing import TransactionSource

from nats_consumer.current import current_attempt
from nats_consumer.logs import fields_of
from nats_consumer.message import Message
from nats_consumer.outcomes import raised_outcome
from nats_consumer.publish import Outgoing

__all__ = ["continue_traces", "isolate"]

_OPERATION = "queue.process"
_PUBLISHING = "queue.publish"
_REPORTER = "nats_consumer.handler"
_FLUSH_SECONDS = 2.0


@sync_and_async_middleware
def isolate(handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An isolation scope and a transaction around each attempt.

    Tags, the user and breadcrumbs of one message are not seen at the next. The failure of a last
    attempt is the event that Sentry's logging integration makes of its line in the log, within the
    scope; the lines of earlier attempts are breadcrumbs."""
    if iscoroutinefunction(handle):

        async def aisolated(message: Any) -> Any:
            with _isolated(message):
                return await handle(message)

        return aisolated

    def isolated(message: Any) -> Any:
        with _isolated(message):
            return handle(message)

    return isolated


def _flush() -> None:
    """Send the last events, at the end of a drain."""
    sentry_sdk.flush(_FLUSH_SECONDS)


isolate.flush = _flush  # type: ignore[attr-defined] # the worker calls it


@contextmanager
def continue_traces(messages: list[Outgoing]) -> Iterator[None]:
    """A span around publishing, which the attempts at these messages belong to."""
    with sentry_sdk.start_span(op=_PUBLISHING, name=_subjects(messages)) as span:
        span.set_data("messaging.system", "nats")
        sent = {
            "sentry-trace": sentry_sdk.get_traceparent(),
            "baggage": sentry_sdk.get_baggage(),
        }
        for each in messages:
            if isinstance(each.headers, dict):
                for name, value in sent.items():
                    if value:
                        each.headers.setdefault(name, value)
        yield


@contextmanager
def _isolated(message: Message | Sequence[Message]) -> Iterator[None]:
    messages: Sequence[Message] = message if isinstance(message, Sequence) else [message]
    first = messages[0]
    with sentry_sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()
        scope.set_context("nats", _about(messages))
        scope.add_event_processor(_unhandled)
        transaction = sentry_sdk.continue_trace(
            first.headers or {},
            op=_OPERATION,
            name=_name(first),
            source=TransactionSource.TASK,
            origin="auto.queue.nats_consumer",
        )
        with sentry_sdk.start_transaction(transaction) as span:
            for name, value in _data(first).items():
                span.set_data(name, value)
            span.set_status("ok")
            outcome: BaseException | None = None
            try:
                yield
            except BaseException as error:
                if not _is_outcome(error):
                    raise
                outcome = error  # what leaves the transaction is an error of it
        if outcome is not None:
            raise outcome


def _name(message: Message) -> str:
    attempt = current_attempt()
    if attempt is None:
        return f"{message.metadata.consumer}.handle_message"
    return f"{attempt.about.consumer}.{attempt.about.handler}"


def _about(messages: Sequence[Message]) -> dict[str, Any]:
    return {**fields_of(messages[0]), "messages": len(messages)}


def _data(message: Message) -> dict[str, Any]:
    place = message.metadata
    latency = datetime.now(UTC) - place.timestamp
    return {
        "messaging.system": "nats",
        "messaging.destination.name": message.subject,
        "messaging.message.id": f"{place.stream}:{place.sequence.stream}",
        "messaging.message.body.size": len(message.data),
        "messaging.message.retry.count": message.attempt - 1,
        "messaging.message.receive.latency": max(0.0, latency.total_seconds() * 1000),
    }


def _subjects(messages: Sequence[Outgoing]) -> str:
    first = str(messages[0].subject) if messages else ""
    return first if len(messages) == 1 else f"{len(messages)} messages"


def _unhandled(event: Any, hint: Any) -> Any:  # noqa: ARG001 - the signature is Sentry's
    """The handler did not handle what the log tells of, although a logger told it."""
    if event.get("logger") == _REPORTER:
        for value in (event.get("exception") or {}).get("values") or []:
            value["mechanism"] = {**(value.get("mechanism") or {}), "handled": False}
    return event


def _is_outcome(error: BaseException) -> bool:
    try:
        return raised_outcome(error) is not None
    except RuntimeError:
        return False
