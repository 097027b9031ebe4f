"""Assertions about what was published, handled and kept. A failure shows what there was."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nats_consumer.names import covers
from nats_consumer.outcomes import Ack
from nats_consumer.publish.drafts import make_draft

from .capture import Published
from .model.attempts import Attempt

if TYPE_CHECKING:
    from nats_consumer._native import StoredLetter
    from nats_consumer.consumer import NatsConsumer


def check_published(
    published: Sequence[Published],
    subject: str,
    data: Any,
    headers: Mapping[str, str] | None,
    count: int | None,
) -> list[Published]:
    """Return the messages that match. Raises AssertionError if their number is wrong."""
    to_subject = [each for each in published if covers(subject, each.subject)]
    payload = None if data is None else make_draft("any", data, None, None)[1]
    wanted = (headers or {}).items()
    found = [
        each
        for each in to_subject
        if (payload is None or _same(payload, each.data)) and wanted <= (each.headers or {}).items()
    ]
    if not _is_right(found, count):
        expected = f"{_number(count)} to {subject}"
        if payload is not None:
            expected += f" with {payload!r}"
        if headers:
            expected += f" and {dict(headers)}"
        # What went to the same subject is nearest.
        others = [*to_subject, *(each for each in published if each not in to_subject)]
        raise AssertionError(
            f"{expected} should have been published, and {len(found)} matched of:\n{lines(others)}"
        )
    return found


def check_attempts(
    attempts: Sequence[Attempt], consumer: "type[NatsConsumer]", count: int | None
) -> list[Attempt]:
    """Return the attempts of the consumer that acknowledged. Raises AssertionError if their number
    is wrong."""
    own = [each for each in attempts if each.consumer is consumer]
    found = [each for each in own if isinstance(each.outcome, Ack)]
    if not _is_right(found, count):
        raise AssertionError(
            f"{consumer.__name__} should have handled {_number(count)}, and handled {len(found)}:\n"
            f"{lines(own)}"
        )
    return found


def check_letters(
    letters: "Sequence[StoredLetter]",
    attempts: Sequence[Attempt],
    consumer: "type[NatsConsumer]",
    reason: str,
    count: int | None,
) -> "list[StoredLetter]":
    """Return the dead letters whose reason contains the text. Raises AssertionError if their number
    is wrong."""
    found = [each for each in letters if reason in each.reason]
    if not _is_right(found, count):
        told = lines(f"{each.subject}: {each.reason} ({each.error})" for each in letters)
        own = lines(each for each in attempts if each.consumer is consumer)
        about = f" because of {reason!r}" if reason else ""
        raise AssertionError(
            f"{consumer.__name__} should have given up {_number(count)}{about}. Its dead letters "
            f"are:\n{told}\nIts attempts were:\n{own}"
        )
    return found


def lines(values: Iterable[object]) -> str:
    """The values, each in a line."""
    return "\n".join(f"  {each}" for each in values) or "  (none)"


def _is_right(found: Sequence[object], count: int | None) -> bool:
    return bool(found) if count is None else len(found) == count


def _number(count: int | None) -> str:
    return "one message or more" if count is None else f"{count} messages"


def _same(wanted: bytes, data: bytes) -> bool:
    return wanted == data or _read(wanted) == _read(data)


def _read(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return data
