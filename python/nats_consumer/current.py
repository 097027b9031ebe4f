"""The attempt that this code runs for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .message import Message


@dataclass(frozen=True)
class About:
    """A consumer, the name of its method, the pattern of its subjects if it has only one, and the
    alias of its connection."""

    consumer: str
    handler: str
    pattern: str | None
    connection: str


class Attempt:
    """One attempt within middleware, at a message or at the list of a batch.

    `outcome` is the decision, once it is known: "ack", "retry", "dead_letter" or "drop"; "settled"
    if the handler did it itself. `error` is the one that the attempt failed with, `is_late` says
    that it took too long, and `is_judged_elsewhere` that the engine has judged it meanwhile,
    because its thread cannot be ended."""

    __slots__ = ("about", "error", "is_judged_elsewhere", "is_late", "message", "outcome")

    def __init__(self, about: About, message: "Message | Sequence[Message]") -> None:
        self.about = about
        self.message = message
        self.outcome: str | None = None
        self.error: BaseException | None = None
        self.is_late = False
        self.is_judged_elsewhere = False


_attempt: ContextVar[Attempt | None] = ContextVar("nats_consumer_attempt", default=None)


def begin(about: About, message: "Message | Sequence[Message]") -> Attempt:
    """Make this context that of a new attempt."""
    attempt = Attempt(about, message)
    _attempt.set(attempt)
    return attempt


@contextmanager
def restored() -> Iterator[None]:
    """After the body, this context is again that of the attempt before it, or of none."""
    before = _attempt.get()
    try:
        yield
    finally:
        _attempt.set(before)


def current_attempt() -> Attempt | None:
    """The attempt whose context this is; None where no middleware is around it."""
    return _attempt.get()


def current_message() -> "Message | None":
    """Return the message that this code handles, also in tasks and threads that its handler has
    started with its context. It needs a middleware; without one, and in a batch, it is None."""
    attempt = _attempt.get()
    return None if attempt is None or isinstance(attempt.message, Sequence) else attempt.message


def note_failure(error: BaseException) -> None:
    """Remember the error of a message of a batch, where middleware is around the batch."""
    attempt = _attempt.get()
    if attempt is not None:
        attempt.error = error
