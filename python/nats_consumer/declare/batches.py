"""Consumers that handle several messages with one call: `handle_batch`."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, getattr_static, isfunction
from typing import Any, TypeAlias, get_args, get_origin

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from nats_consumer import lanes
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.lanes.unfinished import check_finished
from nats_consumer.message import Message
from nats_consumer.outcomes import (
    Ack,
    DeadLetter,
    Drop,
    Outcome,
    Retry,
    as_outcome,
    raised_outcome,
)
from nats_consumer.validation import number, whole

from . import once
from .arguments import (
    MESSAGE,
    NOTHING,
    PAYLOAD,
    UNKNOWN,
    Plan,
    Reading,
    is_message_class,
    message_call,
    message_handler,
    plan_of_consumer,
    says_nothing,
    told_by,
)
from .declaration import Declaration, Declared

_MESSAGES_NAMES = ("messages", "msgs")
_ELEMENT = re.compile(r"(?:\w+\.)*(?:list|List|Sequence|Iterable)\[(.+)\]")
# The engine holds this many bytes of messages for one consumer.
_MOST_BYTES = 32 * 1024 * 1024

Ending: TypeAlias = BaseException | None
"""An outcome, an error, or None for a message that is done."""


class ForAll(Exception):  # noqa: N818 - it is not an error
    """An outcome that handle_batch returned for all messages, and that rolls back its work."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A message of a batch, with its payload if the handler asks for it."""

    message: Message
    payload: Any


def is_batch(consumer: Declared) -> bool:
    """Whether the consumer has a handle_batch."""
    return callable(getattr(consumer, "handle_batch", None))


def batching(consumer: Declared) -> tuple[int | None, int, float]:
    """The limits of a batch in messages, bytes and seconds; no messages if the consumer handles
    each by itself. Raises ConfigurationError for what cannot be."""
    size = whole(consumer.max_batch_bytes, "max_batch_bytes", least=1)
    if size > _MOST_BYTES:
        raise ConfigurationError(
            f"max_batch_bytes must be at most {_MOST_BYTES}, which a consumer holds, not {size}."
        )
    wait = number(consumer.max_batch_wait, "max_batch_wait")
    if not is_batch(consumer):
        return None, size, wait
    return whole(consumer.max_batch, "max_batch", least=1), size, wait


def check_batch(consumer: Declared) -> None:
    """Raises ConfigurationError for a handle_batch that contradicts the other attributes."""
    if not is_batch(consumer):
        return
    if callable(getattr(consumer, "handle_message", None)):
        raise ConfigurationError(
            "it has both handle_message and handle_batch. Keep one: a message is handled by itself "
            "or in a batch."
        )
    if consumer.max_batch is None:
        raise ConfigurationError(
            "handle_batch needs max_batch, the most messages of one call. Set it, as in "
            "max_batch = 100."
        )
    if consumer.ordered:
        raise ConfigurationError(
            "ordered = True handles one message at a time, so nothing can gather for handle_batch. "
            "Write handle_message."
        )
    most, _, _ = batching(consumer)
    pending = consumer.max_ack_pending
    if most is not None and isinstance(pending, int) and pending < most:
        raise ConfigurationError(
            f"max_ack_pending ({pending}) is below max_batch ({most}), so no batch is ever full, "
            "and each waits for max_batch_wait. Raise max_ack_pending, or remove it."
        )


def common_errors(consumer: Declared) -> tuple[type[BaseException], ...]:
    """The errors of the surroundings. Raises ConfigurationError."""
    given: object = consumer.common_errors
    kinds = given if isinstance(given, tuple | list) else (given,)
    if not all(isinstance(each, type) and issubclass(each, Exception) for each in kinds):
        raise ConfigurationError(
            f"common_errors must be a tuple of classes of exceptions, not {given!r}."
        )
    return tuple(kinds)


def plan_of_batch(consumer: Declared) -> Plan:
    """How its handle_batch is called: with lists of the messages, of the payloads, or of both."""
    cls = consumer if isinstance(consumer, type) else type(consumer)
    method = getattr_static(cls, "handle_batch", None)
    if not isfunction(method):
        return Plan(order=[MESSAGE])
    function, parameters = told_by(method)
    return _BatchReading("handle_batch", function, {}).read_batch(parameters)


def plan_of_handler(consumer: Declared) -> Plan | None:
    """How its handle_message or handle_batch is called; None if that takes only the message."""
    return plan_of_batch(consumer) if is_batch(consumer) else plan_of_consumer(consumer)


class BatchCall:
    """The calls of a consumer's handle_batch."""

    def __init__(self, consumer: Declaration) -> None:
        self._method: Callable[..., Any] = consumer.handle_batch  # type: ignore[attr-defined]
        self._plan = plan_of_batch(consumer)
        if self._plan.problems:
            raise ConfigurationError(" ".join(self._plan.problems))
        self.is_async = iscoroutinefunction(self._method)

    def item(self, message: Message) -> Item:
        """The message as the handler gets it. Raises InvalidPayload."""
        decode = self._plan.decode
        return Item(message, None if decode is None else decode(message))

    def handle(self, items: Sequence[Item]) -> dict[Message, Ending]:
        """Call a `def` in a thread; return how each message ended that the handler names. Raises
        what it raises, and ForAll where it returned a Retry or a DeadLetter."""
        try:
            answer = lanes.finish(self._call(items))
        except BaseException as error:
            return _raised(error, items)
        return _read(answer, items)

    async def ahandle(self, items: Sequence[Item]) -> dict[Message, Ending]:
        """handle() for an `async def`."""
        try:
            answer = await self._call(items)
        except BaseException as error:
            return _raised(error, items)
        return _read(answer, items)

    def _call(self, items: Sequence[Item]) -> Any:
        plan = self._plan
        named = {name: _list_of(items, place) for name, place in plan.keywords.items()}
        return self._method(*[_list_of(items, place) for place in plan.order], **named)


def _list_of(items: Sequence[Item], place: int) -> list[Any]:
    return [item.message if place == MESSAGE else item.payload for item in items]


def call_of(consumer: Declaration) -> Callable[[Message], Any]:
    """The call of the consumer's handler with one message: handle_message, or handle_batch with a
    batch of one. Raises ConfigurationError."""
    if not is_batch(consumer):
        return once.handled_once(consumer, message_call(consumer))
    check_batch(consumer)
    batch = BatchCall(consumer)

    def handle(message: Message) -> Any:
        try:
            return _ended(batch.handle([batch.item(message)]), message)
        except ForAll as error:
            raise error.outcome from None

    async def ahandle(message: Message) -> Any:
        try:
            return _ended(await batch.ahandle([batch.item(message)]), message)
        except ForAll as error:
            raise error.outcome from None

    if batch.is_async:
        return markcoroutinefunction(ahandle)
    return once.handled_once(consumer, handle)


def _ended(endings: Mapping[Message, Ending], message: Message) -> None:
    if (ending := endings.get(message)) is not None:
        raise ending


def _raised(error: BaseException, items: Sequence[Item]) -> dict[Message, Ending]:
    outcome = raised_outcome(error)
    # A Drop is that of one message, which is not known yet.
    if isinstance(outcome, Ack) or (isinstance(outcome, Drop) and len(items) == 1):
        return {item.message: outcome for item in items}
    raise error


def _read(answer: object, items: Sequence[Item]) -> dict[Message, Ending]:
    """The answer of handle_batch, by message. Raises TypeError for what it cannot return."""
    if answer is None:
        return {}
    if outcome := as_outcome(answer):
        if isinstance(outcome, Retry | DeadLetter):
            raise ForAll(outcome)
        return {item.message: outcome for item in items}
    if not isinstance(answer, Mapping):
        check_finished(answer, "handle_batch")
        raise TypeError(
            f"handle_batch returned {_kind(answer)}. Return nothing, an outcome for all messages, "
            "or a dict that maps messages to outcomes or exceptions."
        )
    messages = {item.message for item in items}
    endings: dict[Message, Ending] = {}
    for message, ending in answer.items():
        if message not in messages:
            raise TypeError(
                f"handle_batch returned a dict with {_kind(message)} as a key that is no message "
                "of this batch."
            )
        endings[message] = _ending(ending)
    return endings


def _ending(value: object) -> Ending:
    if outcome := as_outcome(value):
        return outcome
    if value is None or isinstance(value, Exception):
        return value
    raise TypeError(
        f"handle_batch returned {_kind(value)} for a message. Use an outcome such as Retry(), or "
        "an exception."
    )


def _kind(value: object) -> str:
    return f"a value of the type {type(value).__name__}"


def handler_of(consumer: Declared) -> Callable[..., Any]:
    """Its handle_message or handle_batch. Raises ConfigurationError if there is none, or both."""
    if not is_batch(consumer):
        return message_handler(consumer)
    check_batch(consumer)
    handler: Callable[..., Any] = consumer.handle_batch  # type: ignore[union-attr]
    return handler


class _BatchReading(Reading):
    """A handle_batch, read parameter by parameter: each gets a list."""

    def read_batch(self, parameters: Sequence[Parameter]) -> Plan:
        places = [self._batch_place(each) for each in parameters]
        lone = [each for each in self._unknown if MESSAGE not in places and not self._payloads][:1]
        for each in self._unknown:
            if each not in lone:
                self._fault(
                    f"the parameter {each.name!r} gets no value. Call it `messages`, or annotate "
                    "it with a list of the payload's type, such as list[dict]."
                )
        if len(self._payloads) > 1:
            self._fault(f"both {' and '.join(self._payloads)} would get the payloads.")
        self._fill(parameters, [MESSAGE if place == UNKNOWN else place for place in places])
        if not self._plan.order and not self._plan.keywords and not self._plan.faults:
            self._fault("it takes nothing. Write `def handle_batch(self, messages)`.")
        return self._plan

    def _batch_place(self, parameter: Parameter) -> int:
        if parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            return NOTHING
        if parameter.name in _MESSAGES_NAMES:
            return MESSAGE
        if parameter.default is not Parameter.empty:
            return NOTHING
        if says_nothing(parameter):
            self._unknown.append(parameter)
            return UNKNOWN
        return self._list(parameter)

    def _list(self, parameter: Parameter) -> int:
        element = _element(self._resolved(parameter))
        if element is None:
            self._annotation(parameter)  # which says so if it is not known at run time
            if not self._plan.faults:
                self._fault(
                    f"{parameter.name!r} gets a list: annotate it with one, such as list[dict]."
                )
            return PAYLOAD
        if is_message_class(element):
            return MESSAGE
        self._payloads.append(parameter.name)
        if isinstance(element, str):
            self._annotation(parameter)
        else:
            self._decode(element)
        return PAYLOAD


def _element(annotation: Any) -> Any:
    """The type of what is in the list, as text where it does not exist at run time; None for
    anything but a list."""
    if isinstance(annotation, str):
        found = _ELEMENT.fullmatch(annotation.strip("'\""))
        return found and found[1]
    kinds = get_args(annotation)
    origin = get_origin(annotation)
    is_list = isinstance(origin, type) and issubclass(list, origin)
    return kinds[0] if is_list and len(kinds) == 1 else None
