"""The report of a failed attempt, and the final word on a message."""

import logging
from collections.abc import Callable
from typing import Any

from nats_consumer import current
from nats_consumer.declare.batches import is_batch
from nats_consumer.declare.declaration import Declaration
from nats_consumer.declare.retry import retry_policy
from nats_consumer.exceptions import InvalidPayload
from nats_consumer.lanes.unfinished import check_finished
from nats_consumer.logs import fields_of, method_of, text_of
from nats_consumer.message import Message
from nats_consumer.outcomes import (
    Ack,
    DeadLetter,
    Drop,
    ErrorAckBehavior,
    Outcome,
    Retry,
    as_outcome,
    raised_outcome,
)
from nats_consumer.terminal import visible

from .attempts import name_of

logger = logging.getLogger("nats_consumer.handler")

# The reason of such dead letters and drops.
_UNDECODABLE = "cannot be decoded"

_FAILED = "%s: attempt %d of %d at message %d of %s failed with %s; %s."
_FAILED_AGAIN = "%s: attempt %d after the limit of %d at message %d of %s failed with %s; %s."
# So the engine's text about a retry begins.
_COMES_AGAIN = "the next attempt"
# What follows a last attempt, in the words of the metrics. A message that handle_error was to
# settle, and did not, is handed back.
_FINAL_NAMES = {
    ErrorAckBehavior.ACK: "ack",
    ErrorAckBehavior.NAK: "retry",
    ErrorAckBehavior.DEAD_LETTER: "dead_letter",
    ErrorAckBehavior.TERM: "drop",
    ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR: "retry",
}


class Report:
    """Tells of the failed attempts of one consumer, and what follows the last one."""

    def __init__(self, consumer: Declaration) -> None:
        self._name = consumer.consumer_name
        self._behavior = consumer.handle_error_ack_behavior
        self._invalid_behavior = consumer.invalid_ack_behavior
        policy = retry_policy(consumer)
        self._attempts = policy.max_attempts
        self._final_delay = policy.max_delay
        self._dead_letters = f"{consumer.stream_name}-dlq"
        self._handle_error: Callable[..., Any] | None = getattr(consumer, "handle_error", None)
        self._handler = "handle_batch" if is_batch(consumer) else "handle_message"

    def log(self, message: Message, error: Exception, follows: str) -> None:
        """Report a failed attempt that is not the last one."""
        outcome = "retry" if follows.startswith(_COMES_AGAIN) else None
        if attempt := current.current_attempt():
            attempt.outcome = outcome or "settled"
        extra = self._fields(message, error, outcome)
        template, values = self._line(message, error, follows)
        logger.warning(template, *values, extra=extra)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "%s: the traceback of attempt %d at message %d of %s.",
                self._name,
                message.attempt,
                message.metadata.sequence.stream,
                visible(message.subject),
                exc_info=error,
                extra=extra,
            )

    def _log_failure(self, message: Message, error: Exception) -> None:
        # Handed back, it may fail without end: its traceback is shown once. That of a payload, of
        # which a new publisher sends many, says nothing more than the line.
        is_shown = message.attempt <= self._attempts and not isinstance(error, InvalidPayload)
        template, values = self._line(message, error, self._what_follows(message, error))
        logger.error(
            template,
            *values,
            exc_info=error if is_shown else None,
            extra=self._fields(message, error, _FINAL_NAMES[self._last_word(error)[1]]),
        )

    def _fields(
        self, message: Message, error: BaseException, outcome: str | None
    ) -> dict[str, Any]:
        return fields_of(message) | {
            "consumer": self._name,
            "handler": method_of(message) or self._handler,
            "outcome": outcome,
            "error_type": type(error).__name__,
        }

    def _name_of_final(self, message: Message, answer: Outcome | None) -> str:
        if message.is_acked:
            return "settled"
        return name_of(answer) if answer else _FINAL_NAMES[self._behavior]

    def _line(
        self, message: Message, error: BaseException, follows: str
    ) -> tuple[str, tuple[object, ...]]:
        """A template, by which lines can be grouped, and its values."""
        return _FAILED if message.attempt <= self._attempts else _FAILED_AGAIN, (
            self._name,
            message.attempt,
            self._attempts,
            message.metadata.sequence.stream,
            visible(message.subject),
            visible(_described(error)),
            follows,
        )

    def _what_follows(self, message: Message, error: Exception) -> str:
        if message.is_acked:
            return "the handler had settled it"
        endings = {
            ErrorAckBehavior.ACK: "it is acknowledged",
            ErrorAckBehavior.NAK: f"it is redelivered in {self._final_delay:g} s",
            ErrorAckBehavior.DEAD_LETTER: f"it is stored in {self._dead_letters}",
            ErrorAckBehavior.TERM: "it is dropped",
            ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR: "it is left to handle_error",
        }
        attribute, behavior = self._last_word(error)
        ending = f"{endings[behavior]} ({attribute}={behavior.name})"
        is_left = behavior is ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
        if self._handle_error is None or is_left:
            return ending
        return f"unless handle_error decides otherwise, {ending}"

    def _last_word(self, error: Exception) -> tuple[str, ErrorAckBehavior]:
        """Return the attribute that decides about a message after this error, with its value."""
        if isinstance(error, InvalidPayload):
            return "invalid_ack_behavior", self._invalid_behavior
        return "handle_error_ack_behavior", self._behavior

    def _invalid(self) -> Outcome:
        outcomes = {
            ErrorAckBehavior.ACK: Ack(),
            ErrorAckBehavior.NAK: Retry(after=self._final_delay),
            ErrorAckBehavior.TERM: Drop(_UNDECODABLE),
        }
        return outcomes.get(self._invalid_behavior, DeadLetter(_UNDECODABLE))

    def _final_word(
        self, message: Message, error: Exception, answer: Outcome | None
    ) -> Outcome | None:
        """Return the decision after handle_error, or None to leave it to the engine, which goes
        by handle_error_ack_behavior."""
        if answer is not None:
            return answer
        if isinstance(error, InvalidPayload):
            return None if message.is_acked else self._invalid()
        implemented = self._behavior is ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
        if not implemented or message.is_acked:
            return None
        logger.warning(
            "%s: handle_error_ack_behavior leaves settling to handle_error, which settled nothing. "
            "The message is redelivered in %g s. Call message.ack(), nak() or term() there.",
            self._name,
            self._final_delay,
            extra=self._fields(message, error, "retry"),
        )
        return Retry(after=self._final_delay)

    def _after_raising_handle_error(
        self, message: Message, error: Exception, raised: BaseException
    ) -> Outcome | None:
        try:
            outcome = raised_outcome(raised)
        except RuntimeError as refused:  # an Ack whose work was rolled back
            outcome, raised = None, refused
        if outcome is not None:
            return outcome
        logger.error(
            "%s: handle_error failed.",
            self._name,
            exc_info=raised,
            extra=self._fields(message, error, None),
        )
        # What handle_error was to do is not done: hand the message back rather than let it go.
        if message.is_acked or self._last_word(error)[1] is ErrorAckBehavior.DEAD_LETTER:
            return self._final_word(message, error, None)
        return Retry(after=self._final_delay)


def word_of(answer: object) -> Outcome | None:
    """The outcome that handle_error returned. Raises TypeError for work that nobody waits for."""
    outcome = as_outcome(answer)
    if outcome is None:
        check_finished(answer, "handle_error")
    return outcome


def _described(error: BaseException) -> str:
    own = f"{type(error).__name__}: {text_of(error)}"
    if not isinstance(error, BaseExceptionGroup):
        return own
    return f"{own}: {'; '.join(map(_described, error.exceptions))}"
