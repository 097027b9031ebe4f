"""One call for the messages of a batch, and what becomes of each of them."""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from nats_consumer import current
from nats_consumer.declare.batches import Ending, ForAll, Item
from nats_consumer.logs import text_of
from nats_consumer.message import Message
from nats_consumer.outcomes import Outcome, Retry, raised_outcome
from nats_consumer.terminal import visible

from .attempts import timeout_text

if TYPE_CHECKING:
    from nats_consumer._native import Consumption, Halves

logger = logging.getLogger("nats_consumer.handler")

Answer: TypeAlias = tuple[Any, BaseException | None]
"""What a call returned, or raised."""
Steps: TypeAlias = Generator[Callable[[], Any], Answer, None]
"""Yields what is to be called, in a thread or on the loop, and is sent the answer."""


class BatchTimeoutError(TimeoutError):
    """A call of handle_batch exceeded the consumer's handler_timeout."""

    def __init__(self, limit: float | None, *, is_settled: bool = False) -> None:
        super().__init__(timeout_text(limit))
        self.is_settled = is_settled


@dataclass(frozen=True, kw_only=True)
class Calls:
    """The project's code, as a lane calls it."""

    item: Callable[[Message], Item]
    handle: Callable[[Sequence[Item]], Any]
    failed: Callable[[Message, Any], Any]


class Batches:
    """The batches of one consumer.

    `attempts` is the number that a message has. An error of the whole batch is split down to the
    guilty message, unless it is one of `common`."""

    def __init__(
        self, name: str, attempts: int, common: tuple[type[BaseException], ...], calls: Calls
    ) -> None:
        self._name = name
        self._attempts = attempts
        self._common = (*common, BatchTimeoutError)
        self._calls = calls
        self.consumption: Consumption

    def handle(self, messages: Sequence[Message]) -> Steps:
        """Handle the messages, and settle each of them."""
        try:
            yield from self._handle(messages)
        except Exception:
            logger.exception(
                "%s: nats_consumer failed while it handled a batch. This is a bug; please report "
                "it. The messages that are not settled are retried.",
                self._name,
                extra={"consumer": self._name, "handler": "handle_batch"},
            )
            self.abandon(messages, hands_back=False)

    def _handle(self, messages: Sequence[Message]) -> Steps:
        items = yield from self._decoded(messages)
        halves = self._halves(items)
        away: BaseException | None = None
        while (part := halves.next()) is not None:
            # The handler may have settled some before it failed.
            chosen = [item for item in items[slice(*part)] if not item.message.is_acked]
            if not chosen:
                continue
            if away is not None and halves.should_stop:
                self._come_again(chosen, away)
                continue
            endings, error = yield partial(self._calls.handle, chosen)
            if error is None:
                halves.succeeded()
                yield from self._settle(chosen, endings)
                continue
            is_whole = len(chosen) == len(items)
            blame = yield from self._fail(chosen, error, halves, is_whole=is_whole)
            away = error if blame == "nobody" else away

    def abandon(self, messages: Sequence[Message], *, hands_back: bool) -> None:
        """Their Task was cancelled: at the end of a drain they are handed back, else they are
        retried."""
        for message in messages:
            if message.is_acked:
                continue
            if hands_back:
                self.consumption.hand_back(message)
            else:
                self.consumption.returned(message, Retry())

    def _decoded(self, messages: Sequence[Message]) -> Generator[Any, Answer, list[Item]]:
        items = []
        for message in messages:
            try:
                items.append(self._calls.item(message))
            except Exception as error:  # InvalidPayload, or one of the payload's own code
                yield from self._judge(message, error)
        return items

    def _halves(self, items: Sequence[Item]) -> "Halves":
        from nats_consumer._native import Halves

        return Halves(len(items), any(each.message.attempt > self._attempts for each in items))

    def _settle(self, items: Sequence[Item], endings: Mapping[Message, Ending]) -> Steps:
        for item in items:
            ending = endings.get(item.message)
            if ending is None or isinstance(ending, Outcome):
                self.consumption.returned(item.message, ending)
            else:
                yield from self._judge(item.message, ending)

    def _fail(
        self, items: Sequence[Item], error: BaseException, halves: "Halves", *, is_whole: bool
    ) -> Generator[Any, Answer, str]:
        outcome = error.outcome if isinstance(error, ForAll) else _retry(error)
        if outcome is not None:
            yield from self._settle(items, {item.message: outcome for item in items})
            return "proven"
        is_common = isinstance(error, self._common)
        blame = halves.failed_in_common() if is_common else halves.failed()
        if blame == "nobody":
            self._come_again(items, error)
        elif blame == "proven":
            for item in items:
                yield from self._judge(item.message, error)
        elif is_whole:
            logger.warning(
                "%s: a batch of %d messages failed with %s: %s; each half is handled separately.",
                self._name,
                len(items),
                type(error).__name__,
                visible(text_of(error)),
                extra=self._fields(error),
            )
        return blame

    def _come_again(self, items: Sequence[Item], error: BaseException) -> None:
        """No message is guilty, so this takes none to its dead letters."""
        current.note_failure(error)
        is_late = isinstance(error, BatchTimeoutError)
        if isinstance(error, BatchTimeoutError) and error.is_settled:
            return  # the engine has said so when the time was over
        name = "TimeoutError" if is_late else type(error).__name__
        for item in items:
            if not item.message.is_acked:
                self.consumption.failed_in_common(item.message, name, is_late)
        logger.warning(
            "%s: a batch of %d messages failed with %s: %s; this blames no message, so all of them "
            "are delivered again.",
            self._name,
            len(items),
            name,
            visible(text_of(error)),
            extra=self._fields(error),
        )

    def _fields(self, error: BaseException) -> dict[str, str]:
        return {
            "consumer": self._name,
            "handler": "handle_batch",
            "error_type": type(error).__name__,
        }

    def _judge(self, message: Message, error: BaseException) -> Steps:
        current.note_failure(error)
        if not self.consumption.raised(message, error):
            return
        answer, second = yield partial(self._calls.failed, message, error)
        # What `failed` itself raises is a mistake of this package, and no message suffers from it.
        self.consumption.exhaust(message, error, answer if second is None else None)


def _retry(error: BaseException) -> Retry | None:
    """The Retry that was raised: it is for all, because it takes nothing from anybody."""
    try:
        outcome = raised_outcome(error)
    except RuntimeError:  # an Ack whose work was rolled back is an error, and is judged as one
        return None
    return outcome if isinstance(outcome, Retry) else None
