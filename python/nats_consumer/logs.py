"""Fields of log records: which message a line is about."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from django.utils.decorators import sync_and_async_middleware

from .current import current_attempt
from .message import Message

FIELDS = (
    "consumer",
    "stream",
    "durable",
    "subject",
    "sequence",
    "attempt",
    "handler",
    "outcome",
    "error_type",
)
"""The names of the fields. None is one that `logging` has for itself."""


def fields_of(message: Message) -> dict[str, Any]:
    """The fields that the message itself has."""
    place = message.metadata
    return {
        "stream": place.stream,
        "durable": place.consumer,
        "subject": message.subject,
        "sequence": place.sequence.stream,
        "attempt": message.attempt,
    }


def text_of(error: BaseException) -> str:
    """The text of the error, also where the project's `__str__` fails: the message has to be
    settled in any case."""
    try:
        return str(error)
    except Exception:
        return f"<unprintable {type(error).__name__} object>"


def method_of(message: Message) -> str | None:
    """The method of a ConsumerHandler that the message was routed to."""
    return getattr(message, "_method", None)


class MessageFields(logging.Filter):
    """A filter that gives each record the fields of the message which its code handles. It drops
    nothing. A field that the record has stays as it is; one that is not known is None, so that a
    format may name any. It needs a middleware, as current_message() does."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Give the record the fields."""
        known = _known()
        for name in FIELDS:
            record.__dict__.setdefault(name, known.get(name))
        return True


@sync_and_async_middleware
def current_message_is_known(handle: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware that does nothing: with any middleware, current_message() and MessageFields know
    the message."""
    return handle


def _known() -> dict[str, Any]:
    attempt = current_attempt()
    if attempt is None:
        return {}
    found: dict[str, Any] = {"consumer": attempt.about.consumer, "handler": attempt.about.handler}
    if not isinstance(attempt.message, Sequence):
        found |= fields_of(attempt.message)
        found["handler"] = method_of(attempt.message) or attempt.about.handler
    return found
