"""Arguments of a handler, chosen by its signature once, before the first call."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum
from inspect import Parameter, getattr_static, isfunction, signature
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, get_origin, get_type_hints
from uuid import UUID

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from nats_consumer.exceptions import ConfigurationError, InvalidPayload
from nats_consumer.message import Message
from nats_consumer.payloads.decode import Decode, decoder_for, is_payload_class
from nats_consumer.payloads.event import subject_text
from nats_consumer.templates import has_names, pattern_of, template, tokens_of

from .declaration import Declared, is_overridden
from .filters import filter_texts

if TYPE_CHECKING:
    from nats_consumer._native import Tokens

Convert: TypeAlias = Callable[[str], Any]

_MESSAGE_NAMES = ("message", "msg")
# The names of the classes of messages, ours and nats-py's, and where they are.
_MESSAGE_CLASSES = ("Message", "Msg")
_MESSAGE_PACKAGES = ("nats", "nats_consumer")
_SAYS_NOTHING = (Parameter.empty, Any, object)
_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
# Places of parameters: what each of them gets. Tokens follow the payload.
MESSAGE, PAYLOAD, NOTHING, UNKNOWN = 0, 1, -1, -2
_WHOLE = re.compile(r"-?[0-9]{1,4300}", re.ASCII)


@dataclass
class Plan:
    """How a handler is called. `order` has the place of each argument among the message, the
    payload and the tokens, and `keywords` of each that is given by its name; `payload` is the
    annotation. `faults` and `undecodable` say why it cannot be called."""

    order: list[int] = field(default_factory=list)
    keywords: dict[str, int] = field(default_factory=dict)
    payload: Any = None
    decode: Decode | None = None
    names: list[str] = field(default_factory=list)
    converters: list[Convert] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All that is wrong with it."""
        return [*self.faults, *self.undecodable]


def message_handler(consumer: Declared) -> Callable[..., Any]:
    """The consumer's handle_message. Raises ConfigurationError if there is none."""
    handler: Callable[..., Any] | None = getattr(consumer, "handle_message", None)
    if not callable(handler):
        raise ConfigurationError(
            "it has no handle_message. Write `async def handle_message(self, message)`, or the "
            "same with `def` for blocking code."
        )
    return handler


def message_call(consumer: Declared) -> Callable[[Message], Any]:
    """The call of the consumer's handle_message with a message: the method itself, if that takes
    only the message. Raises ConfigurationError."""
    method = message_handler(consumer)
    found = plan_of_consumer(consumer)
    return method if found is None else typed_call(method, found, filter_texts(consumer))


def plan_of_consumer(consumer: Declared) -> Plan | None:
    """The plan of the consumer's handle_message; None if it takes only the message."""
    if isinstance(consumer, type) and is_overridden(consumer, "get_filter_subject"):
        return None  # only an instance can say what it gets
    if "handle_message" in vars(consumer) and not isinstance(consumer, type):
        return None
    try:
        texts = filter_texts(consumer)
    except ConfigurationError:
        texts = []  # consumer_options() says so
    return plan_of(consumer, "handle_message", texts)


def plan_of(owner: object, name: str, texts: Sequence[Any]) -> Plan | None:
    """The plan of a method that gets the messages of these subjects; None if it takes only the
    message, or says too little of itself."""
    cls = owner if isinstance(owner, type) else type(owner)
    method = getattr_static(cls, name, None)
    if not isfunction(method):
        return None
    function, parameters = told_by(method)
    return Reading(name, function, _names(texts)).read(parameters)


def typed_call(
    method: Callable[..., Any], plan: Plan, texts: Sequence[Any]
) -> Callable[[Message], Any]:
    """The call of the method as the plan says. Raises ConfigurationError if it cannot be."""
    if plan.problems:
        raise ConfigurationError(" ".join(plan.problems))
    if plan.order == [1] and not plan.keywords and plan.decode is not None:
        call = _payload_call(method, plan.decode)
    else:
        call = _call(method, plan, _tokens(plan, texts))
    return markcoroutinefunction(call) if iscoroutinefunction(method) else call


def _payload_call(method: Callable[..., Any], decode: Decode) -> Callable[[Message], Any]:
    return lambda message: method(decode(message))


def _call(
    method: Callable[..., Any], plan: Plan, tokens: "Tokens | None"
) -> Callable[[Message], Any]:
    def call(message: Message) -> Any:
        payload = None if plan.decode is None else plan.decode(message)
        found = () if tokens is None else _converted(plan, tokens, message.subject)
        given = (message, payload, *found)
        named = {name: given[place] for name, place in plan.keywords.items()}
        return method(*[given[place] for place in plan.order], **named)

    return call


def _tokens(plan: Plan, texts: Sequence[Any]) -> "Tokens | None":
    if not plan.names:
        return None
    return tokens_of([subject_text(each) for each in texts], plan.names)


def _converted(plan: Plan, tokens: "Tokens", subject: str) -> list[Any]:
    found = tokens.of(subject)
    if found is None:
        raise InvalidPayload(f"The subject {subject!r} has another form than the handler's.")
    return [
        _token(convert, name, token, subject)
        for convert, name, token in zip(plan.converters, plan.names, found, strict=True)
    ]


def _token(convert: Convert, name: str, token: str, subject: str) -> Any:
    try:
        return convert(token)
    except ValueError as error:
        raise InvalidPayload(f"{{{name}}} of the subject {subject!r}: {error}") from None


class Reading:
    """One method, read parameter by parameter."""

    def __init__(self, name: str, function: Callable[..., Any], names: dict[str, bool]) -> None:
        self._name = name
        self._function = function
        self._names = names
        self._plan = Plan()
        self._payloads: list[str] = []
        self._unknown: list[Parameter] = []

    def read(self, parameters: Sequence[Parameter]) -> Plan | None:
        places = [self._place(each) for each in parameters]
        if not self._payloads and not self._plan.names:
            if places[:1] == [NOTHING]:
                self._check_default(parameters[0])
            if not self._plan.faults:
                return None
        lone = [each for each in self._unknown if 0 not in places and not self._payloads][:1]
        for each in self._unknown:
            if each not in lone:
                self._fault(
                    f"the parameter {each.name!r} gets no value. Call it `message`, or like a name "
                    "in braces of the subject, or annotate it with the payload's type."
                )
        if len(self._payloads) > 1:
            self._fault(
                f"both {' and '.join(self._payloads)} would get the payload. Keep one. A token "
                "of the subject goes to a parameter that is called like a name in braces; its "
                f"subjects have {', '.join(map(_braced, self._names)) or 'none'}."
            )
        # An unknown one that is alone is the message, as it was before signatures meant anything.
        self._fill(parameters, [MESSAGE if place == UNKNOWN else place for place in places])
        return self._plan

    def _fill(self, parameters: Sequence[Parameter], places: Sequence[int]) -> None:
        by_name = False
        for parameter, place in zip(parameters, places, strict=True):
            by_name = by_name or place == NOTHING or parameter.kind is Parameter.KEYWORD_ONLY
            if place == NOTHING:
                continue
            if by_name:
                self._plan.keywords[parameter.name] = place
            else:
                self._plan.order.append(place)

    def _check_default(self, first: Parameter) -> None:
        """Complain of a parameter with a type and a default: as the first one it would get the
        message."""
        if first.kind not in _VARIABLE and not says_nothing(first):
            self._fault(
                f"{first.name!r} has a default, so it does not get the payload. Remove the default."
            )

    def _place(self, parameter: Parameter) -> int:
        if parameter.kind in _VARIABLE:
            return NOTHING
        if parameter.name in _MESSAGE_NAMES:
            return self._message(parameter)
        if is_message_class(self._resolved(parameter)):
            return 0
        if parameter.name in self._names:
            return self._token(parameter)
        if parameter.default is not Parameter.empty:
            return NOTHING
        if says_nothing(parameter):
            self._unknown.append(parameter)
            return UNKNOWN
        return self._payload(parameter)

    def _message(self, parameter: Parameter) -> int:
        if is_payload_class(self._resolved(parameter)):
            self._fault(
                f"{parameter.name!r} has the message's name, but a payload type. Give it another "
                "name."
            )
        return 0

    def _token(self, parameter: Parameter) -> int:
        if not self._names[parameter.name]:
            self._fault(
                f"{_braced(parameter.name)} is not in each of its subjects. Write it in all of "
                "them, or remove the parameter."
            )
        convert = _converter(self._annotation(parameter))
        if convert is None:
            self._fault(
                f"{parameter.name!r} is a token of the subject. Annotate it as str, int, UUID, "
                f"date or an Enum, and not {_written(parameter.annotation)}."
            )
        self._plan.names.append(parameter.name)
        self._plan.converters.append(convert or str)
        return 1 + len(self._plan.names)

    def _payload(self, parameter: Parameter) -> int:
        self._payloads.append(parameter.name)
        annotation = self._annotation(parameter)
        if annotation is None:
            return 1
        if _converter(annotation) is not None:
            braced = _braced(parameter.name)
            self._fault(
                f"{parameter.name!r} would get a token, and no subject has {braced}. Write it in "
                f'filter_subject or @handle, as in "orders.{braced}". '
                "To get a value of the payload, annotate a parameter as dict, or with a class."
            )
            return 1
        self._decode(annotation)
        return 1

    def _decode(self, annotation: Any) -> None:
        self._plan.payload = annotation
        if variable := _variable_of(annotation):
            self._fault(
                f"the type variable {variable} does not say what the payload is. Write the "
                "method with the payload's type in the class that has the subject."
            )
            return
        try:
            self._plan.decode = decoder_for(annotation)
        except ConfigurationError as error:
            self._plan.undecodable.append(f"{self._name}: {error}")

    def _annotation(self, parameter: Parameter) -> Any:
        if parameter.annotation is Parameter.empty:
            return str
        found = self._resolved(parameter)
        if isinstance(found, str):
            self._fault(
                f"the annotation of {parameter.name!r}, {found!r}, is not known at run time. "
                "Import it outside `if TYPE_CHECKING`."
            )
            return None
        return found

    def _resolved(self, parameter: Parameter) -> Any:
        """The annotation; its text, if that stands for nothing that exists at run time."""
        holder = SimpleNamespace(__annotations__={"it": parameter.annotation})
        try:
            return get_type_hints(holder, self._function.__globals__, include_extras=True)["it"]
        except (NameError, AttributeError, SyntaxError, TypeError):
            return str(parameter.annotation)

    def _fault(self, text: str) -> None:
        self._plan.faults.append(f"{self._name}: {text}")


def _braced(name: str) -> str:
    return f"{{{name}}}"


def _written(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def says_nothing(parameter: Parameter) -> bool:
    """Whether its annotation does not say what it gets."""
    return parameter.annotation in _SAYS_NOTHING


def is_message_class(kind: Any) -> bool:
    """Whether it is the class of messages, ours or nats-py's, or the text that names it: perhaps it
    is imported for type checkers only."""
    if isinstance(kind, str):
        return kind.rpartition(".")[2].strip("'\"") in _MESSAGE_CLASSES
    package = getattr(kind, "__module__", "").partition(".")[0]
    is_named = getattr(kind, "__name__", "") in _MESSAGE_CLASSES
    return is_named and package in _MESSAGE_PACKAGES


def told_by(function: Callable[..., Any]) -> tuple[Callable[..., Any], list[Parameter]]:
    """The function whose signature counts, and its parameters after `self`: what a decorator that
    takes anything, such as @transaction.atomic, has wrapped."""
    while True:
        parameters = list(signature(function, follow_wrapped=False).parameters.values())
        if parameters and parameters[0].kind not in _VARIABLE:
            parameters = parameters[1:]
        is_silent = all(each.kind in _VARIABLE for each in parameters)
        inner = getattr(function, "__wrapped__", None)
        if not is_silent or not isfunction(inner):
            return function, parameters
        function = inner


def _variable_of(annotation: Any) -> Any:
    """A type variable in the annotation, which nobody has replaced with a type; None without one.
    A generic class by itself is any of its kind."""
    if isinstance(annotation, TypeVar):
        return annotation
    left = get_origin(annotation) and getattr(annotation, "__parameters__", ())
    return left[0] if left else None


def _names(texts: Sequence[Any]) -> dict[str, bool]:
    """The names in the subjects, and whether each is in all of them."""
    found = [_names_of(each) for each in texts]
    return {name: all(name in each for each in found) for each in found for name in each}


def _names_of(text: Any) -> list[str]:
    try:
        text = subject_text(text)
        pattern_of(text)
    except ValueError:
        return []  # consumer_options() says so
    return template(text).names if has_names(text) else []


def _converter(annotation: Any) -> Convert | None:
    """The function that reads a token, or None for another type. It raises ValueError."""
    if annotation in (str, Any, object):
        return str
    if annotation is int:
        return _whole
    if annotation is UUID:
        return UUID
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, Enum):
        members = {str(each.value): each for each in annotation}
        return lambda token: _member(members, annotation.__name__, token)
    if issubclass(annotation, date) and not issubclass(annotation, datetime):
        return annotation.fromisoformat
    return None


def _whole(token: str) -> int:
    if _WHOLE.fullmatch(token) is None:
        raise ValueError(f"{token[:40]!r} is not a whole number")
    return int(token)


def _member(members: dict[str, Enum], name: str, token: str) -> Enum:
    if token not in members:
        raise ValueError(f"{token[:40]!r} is not a value of {name}")
    return members[token]
