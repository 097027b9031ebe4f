"""Outcomes of a message: a handler raises one of these, or returns it."""
# ruff: noqa: N818 - an outcome is not an error

from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from math import inf
from typing import Any

_MISSING: Any = object()


class Outcome(Exception):
    """A decision about a message. It is an exception so that it can be raised from anywhere in a
    handler; it is never logged as an error."""

    after: float | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return self.reason or repr(self)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.args == getattr(other, "args", None)

    def __hash__(self) -> int:
        return hash((type(self), self.args))


class Ack(Outcome):
    """The message is done. Raised inside `transaction.atomic()` it is a failed attempt, because the
    exception rolls back what the handler did: return it instead."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._in_blocks = [(connection, _depth(connection)) for connection in _in_transactions()]

    def check_work(self) -> None:
        """Raise RuntimeError if an atomic block was left since: it rolled the work back."""
        if any(depth > _depth(connection) for connection, depth in self._in_blocks):
            raise RuntimeError(
                "raise Ack() inside transaction.atomic() rolled back what the handler did: "
                "use `return Ack()`, or raise it after the block."
            ) from self


class Retry(Outcome):
    """Deliver the message again after `after`: seconds, a timedelta, or None for the delay of the
    consumer's retry attributes. Raises ValueError for a delay that is negative or not finite,
    TypeError if it is not a number."""

    def __init__(self, after: float | timedelta | None = None) -> None:
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        if not isinstance(seconds, int | float | None):
            raise TypeError(
                f"Retry(after={after!r}): a delay is a number of seconds, or a timedelta"
            )
        if seconds is not None and not 0 <= seconds < inf:
            raise ValueError(f"Retry(after={after!r}): a delay is a number of seconds, not below 0")
        super().__init__(seconds)
        self.after = None if seconds is None else float(seconds)


class _Final(Outcome):
    # Without a default, Python would name this class in the error of `raise DeadLetter`.
    def __init__(self, reason: str = _MISSING) -> None:
        if not isinstance(reason, str):
            name = type(self).__name__
            wrong = "" if reason is _MISSING else f" that is text, not {reason!r}"
            raise TypeError(f"{name} needs a reason{wrong}: {name}('why').")
        super().__init__(reason)
        self.reason = reason


class DeadLetter(_Final):
    """Keep the message in the dead letter stream, with `reason`, and never deliver it again.
    Raises TypeError without a reason."""


class Drop(_Final):
    """Discard the message for good; `reason` goes to the log and to the server. Raises TypeError
    without a reason."""


class ErrorAckBehavior(Enum):
    """Decision about a message whose last attempt failed, after handle_error has run."""

    ACK = "Ack"
    """Acknowledge it and move on."""
    NAK = "Nak"
    """Hand it back: it comes again after max_retry_delay."""
    IMPLEMENTED_BY_HANDLE_ERROR = "ImplementedByHandleError"
    """handle_error settles it; if it does not, it is handed back with a warning."""
    DEAD_LETTER = "DeadLetter"
    """Keep it in the dead letter stream."""
    TERM = "Term"
    """Discard it for good."""


def as_outcome(answer: object) -> Outcome | None:
    """The outcome that a handler returned, as an object or as its class; None for anything else."""
    if isinstance(answer, type) and issubclass(answer, Outcome):
        return answer()
    return answer if isinstance(answer, Outcome) else None


def raised_outcome(error: BaseException) -> Outcome | None:
    """The outcome that `error` is, or contains if it is an exception group; None if there is none.
    Raises RuntimeError for an Ack whose work was rolled back.

    Of several in a group the one that keeps most of the message wins: DeadLetter, Retry, Drop, Ack.
    An Ack does not count beside an error."""
    if not isinstance(error, Outcome | BaseExceptionGroup):
        return None
    leaves = list(_leaves(error))
    for kind in (DeadLetter, Retry, Drop, Outcome):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return _checked(leaf, leaves)
    return None


def _checked(outcome: Outcome, leaves: list[BaseException]) -> Outcome | None:
    if not isinstance(outcome, Ack):
        return outcome
    if not all(isinstance(leaf, Outcome) for leaf in leaves):
        return None
    outcome.check_work()
    return outcome


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _in_transactions() -> list[Any]:
    """The database connections of this thread that are in an atomic block."""
    from django.conf import settings
    from django.db import connections

    if not settings.configured:
        return []
    return [each for each in connections.all(initialized_only=True) if each.in_atomic_block]


def _depth(connection: Any) -> int:
    """How many atomic blocks are open on the connection."""
    return 1 + len(connection.savepoint_ids) if connection.in_atomic_block else 0
