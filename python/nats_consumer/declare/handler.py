"""Handler classes: they route each message to a method by its subject."""

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.apps import apps

from nats_consumer import lanes
from nats_consumer.exceptions import ConfigurationError, SettledTooEarly
from nats_consumer.lanes.unfinished import check_finished
from nats_consumer.message import Message
from nats_consumer.names import is_wildcard, overlap
from nats_consumer.outcomes import Ack, Retry, as_outcome
from nats_consumer.payloads.event import subject_text
from nats_consumer.templates import has_names, pattern_of

from . import once
from .arguments import plan_of, typed_call
from .filters import loose_pattern
from .retry import RetryPolicy
from .signatures import check_methods, returns_nothing, unfit_method

if TYPE_CHECKING:
    from nats_consumer._native import Router

logger = logging.getLogger("nats_consumer.handler")

_Method = TypeVar("_Method", bound=Callable[..., Any])
_MARK = "_nats_subjects"


def handle(*subjects: str | type) -> Callable[[_Method], _Method]:
    """Mark a ConsumerHandler method as the handler of `subjects`, which may contain wildcards and
    names in braces, or be event classes. Decorators can be stacked. Raises TypeError or ValueError
    if one is not a subject."""
    if not subjects:
        raise TypeError('@handle needs at least one subject: @handle("orders.created").')
    for subject in subjects:
        if not isinstance(subject, str | type):
            raise TypeError(
                f'@handle takes subjects, not {subject!r}: @handle("orders.created", "orders.*").'
            )
        try:
            pattern_of(subject_text(subject))
        except ValueError as error:
            raise ValueError(f"@handle cannot match that: {error}.") from error

    def mark(method: _Method) -> _Method:
        setattr(method, _MARK, (*subjects, *getattr(method, _MARK, ())))
        return method

    return mark


class _SetByInit:
    """A placeholder until __init__ sets the attribute on the instance."""

    def __get__(self, instance: object, owner: type) -> Any:
        raise TypeError(
            f"__init__ of {owner.__name__} must call super().__init__(subjects), or "
            "super().__init__() where @handle names them all."
        )


class ConsumerHandler:
    """Calls one method per subject.

    `subjects` maps each to `handle_<all after its first token>`: "orders.created" to
    `handle_created`, "users.profile.updated" to `handle_profile_updated`; `.`, `-` and `_` all
    separate tokens. A wildcard in the list has no method, nor has a name in braces, which
    means one. Methods marked with `@handle("orders.*")` or `@handle("orders.{id}.paid")` need no
    list. An exact subject of @handle wins, then a mapped method that
    exists, then wildcards. Among wildcards the most specific wins.

    A message that matches no method goes to `fallback_handle`. Methods may be `async def` or `def`.
    """

    _names: dict[str, str] = cast(Any, _SetByInit())
    _marked: dict[str, str] = cast(Any, _SetByInit())

    def __init__(self, subjects: Sequence[str] = ()) -> None:
        if isinstance(subjects, str):
            raise TypeError(f"subjects must be a list of subjects, not the text {subjects!r}.")
        self.subjects = subjects
        self.retry_policy = RetryPolicy()
        self._names = self._map_names(subjects)
        self._marked = self._collect_marked()
        check_methods(type(self), [*self.get_handler_methods(), "fallback_handle"])
        self._methods = self._typed_methods()
        self._router, self._wildcard_names = self._build_router()
        names = set(self.get_handler_methods())
        self._blocking = {name for name in names if self._is_blocking(name)}
        # Nothing has to look at their answers, so no coroutine is around theirs.
        self._silent = {name for name in names if returns_nothing(type(self), name)}
        for wildcard in self.wildcards_without_method():
            logger.warning("%s: %s", type(self).__name__, _without_method(wildcard))
        if not subjects and not self._marked:
            logger.warning(
                "%s handles no subject: pass subjects to super().__init__(), or mark methods "
                "with @handle.",
                type(self).__name__,
            )

    def handle(self, message: Message) -> Any:
        """Pass the message to its method. Await the answer, unless you are in a plain `def`
        handle_message: there the method has finished when this returns.

        What the method returns counts as if handle_message returned it: this raises a Retry, a
        DeadLetter and a Drop, and TypeError for work that nobody waits for."""
        subject = message.subject
        name = self._name_for(subject)
        method = getattr(self._methods, name, None) if name else None
        is_there = callable(method)
        # Stand-ins of messages, in somebody's tests, note nothing.
        if note := getattr(message, "_note_method", None):
            note(name if is_there else "fallback_handle")
        if name is None or method is None or not is_there:
            reason = self._reason(subject, name)
            answer = lanes.call(self.fallback_handle, message, reason=reason)
            return _checked(answer, "fallback_handle")
        if lanes.in_thread_lane():
            return _checked(lanes.call(method, message), name)
        if name in self._silent:
            return method(message)
        if name in self._blocking:
            return _checked(lanes.call(method, message), name)
        return _checked(method(message), name)

    async def fallback_handle(self, msg: Message, reason: str = "unknown") -> Any:
        """Called with a message that matches no method; override it to decide. By default the
        message is redelivered after the consumer's retry delay.

        `reason` is "unhandled_subject" (not in the list of subjects, or covered by a wildcard in it
        alone), "not_implemented" (the mapped method does not exist), "no_handler" (there is no list
        and no @handle matches) or, of a message published to the text of a wildcard in the list,
        "no_mapping"."""
        # A stand-in for nats-py's Msg, in somebody's tests, has none.
        delay = self.retry_policy.delay_after(getattr(msg, "attempt", 1))
        logger.warning(
            "%s has no handler for %r (%s). Message %s of stream %s is redelivered to the durable "
            "%s in %g s.",
            type(self).__name__,
            msg.subject,
            reason,
            msg.metadata.sequence.stream,
            msg.metadata.stream,
            msg.metadata.consumer,
            delay,
            extra={
                "stream": msg.metadata.stream,
                "durable": msg.metadata.consumer,
                "subject": msg.subject,
                "sequence": msg.metadata.sequence.stream,
                "outcome": "retry",
            },
        )
        try:
            await msg.nak(delay)
        except SettledTooEarly:  # a raised outcome rolls back what an idempotent handler did
            raise Retry(delay) from None

    def send_to_dlq(self, msg: Message, reason: str = "unknown") -> Awaitable[None]:
        """Store a copy of the message, with `reason`, in the dead letter stream `<stream>-dlq`.

        Await it (in a plain `def` it has finished when it returns). The message itself stays to be
        settled: ack it afterwards, or return. Raises PublishError or Unreachable if the copy could
        not be stored. Nothing is lost then: the message comes again."""
        return msg.copy_to_dlq(reason)

    def validate_handlers(self) -> list[str]:
        """The names of the mapped methods that are missing, one for each subject that no method
        takes."""
        return [
            name
            for subject, name in self._names.items()
            if not callable(getattr(self, self._name_for(subject) or name, None))
        ]

    def wildcards_without_method(self) -> list[str]:
        """The wildcards in the list of subjects that no @handle shares a subject with. A
        fallback_handle or handle of one's own may decide about them."""
        kind = type(self)
        if not (
            kind.handle is ConsumerHandler.handle
            and kind.fallback_handle is ConsumerHandler.fallback_handle
        ):
            return []
        return [
            subject
            for subject in self.subjects
            if _has_wildcard(subject)
            and not any(overlap(each, loose_pattern(subject)) for each in self._marked)
        ]

    def get_subjects(self) -> list[str]:
        """The subjects that lead to a method, wildcards of @handle among them."""
        return list(dict.fromkeys([*self._names, *self._marked]))

    def get_handler_methods(self) -> list[str]:
        """The names of all methods that a subject leads to, implemented or not."""
        return [*self._names.values(), *self._marked.values()]

    def _name_for(self, subject: str) -> str | None:
        marked = self._marked.get(subject)
        if marked:
            return marked
        mapped = self._names.get(subject)
        if mapped and callable(getattr(self, mapped, None)):
            return mapped
        return self._matching(subject) or mapped

    def _map_names(self, subjects: Sequence[str]) -> dict[str, str]:
        names: dict[str, str] = {}
        owners: dict[str, str] = {}
        for subject in subjects:
            if _has_wildcard(subject):
                continue
            name = _method_name(subject)
            if owner := owners.get(name):
                logger.warning(
                    "%s: handler collision: %r and %r are both handled by %s(). Rename a subject, "
                    "or mark another method with @handle(%r).",
                    type(self).__name__,
                    subject,
                    owner,
                    name,
                    subject,
                )
            owners.setdefault(name, subject)
            names[subject] = name
        _recommend_dots([subject for subject in names if "." not in subject])
        return names

    def _typed_methods(self) -> Any:
        """The handler itself, or a stand-in with the calls of the methods that declare more than
        the message."""
        texts = method_subjects(self)
        plans = {name: plan_of(self, name, subjects) for name, subjects in texts.items()}
        untyped = [name for name, plan in plans.items() if plan is None]
        if faults := list(filter(None, (unfit_method(type(self), name) for name in untyped))):
            raise ConfigurationError(f"{type(self).__name__}.{' '.join(faults)}")
        try:
            calls = {
                name: typed_call(getattr(self, name), plan, texts[name])
                for name, plan in plans.items()
                if plan is not None
            }
        except ConfigurationError as error:
            raise ConfigurationError(f"{type(self).__name__}.{error}") from error
        for name in texts:
            method = getattr(self, name, None)
            if method is not None and (using := once.database_of(method)):
                calls[name] = once.method_once(calls.get(name, method), name, using)
        return _Typed(self, calls) if calls else self

    def _collect_marked(self) -> dict[str, str]:
        marked: dict[str, str] = {}
        for name, subjects in self._marks().items():
            for subject in map(pattern_of, map(subject_text, subjects)):
                if subject in marked:
                    logger.warning(
                        "%s: %r is marked on both %s() and %s(); %s() gets it.",
                        type(self).__name__,
                        subject,
                        marked[subject],
                        name,
                        name,
                    )
                marked[subject] = name
        return marked

    def _marks(self) -> dict[str, list[str]]:
        # By name, not by function: an override without the decorator keeps the subjects, and one
        # with it has its own alone. vars() instead of getattr(), because that would evaluate the
        # class's properties.
        marks: dict[str, list[str]] = {}
        for cls in reversed(type(self).__mro__):
            for name, attribute in vars(cls).items():
                if subjects := getattr(attribute, _MARK, ()):
                    marks.pop(name, None)  # it is later than what its base has marked
                    marks[name] = list(dict.fromkeys(subjects))
        return marks

    def _build_router(self) -> "tuple[Router | None, list[str]]":
        patterns = [subject for subject in self._marked if is_wildcard(subject)]
        if not patterns:
            return None, []
        # On first use, so that declaring consumers does not load the engine.
        from nats_consumer._native import Router

        return Router(patterns), [self._marked[pattern] for pattern in patterns]

    def _matching(self, subject: str) -> str | None:
        if self._router is None:
            return None
        index = self._router.find(subject)
        return None if index is None else self._wildcard_names[index]

    def _reason(self, subject: str, name: str | None) -> str:
        if name:
            return "not_implemented"
        if not self.subjects:
            return "no_handler"
        return "no_mapping" if subject in self.subjects else "unhandled_subject"

    def _is_blocking(self, name: str) -> bool:
        method = getattr(self, name, None)
        return callable(method) and not iscoroutinefunction(method)


def method_subjects(handler: ConsumerHandler) -> dict[str, list[Any]]:
    """The subjects of each method, as they are written; of missing methods too."""
    texts: dict[str, list[Any]] = defaultdict(list)
    for subject, name in handler._names.items():
        texts[name].append(subject)
    for name, subjects in handler._marks().items():
        texts[name].extend(subjects)
    return texts


def _checked(answer: Any, name: str) -> Any:
    """The answer of a method, or the awaitable of it, once it was looked at."""
    return _read(answer, name) if lanes.in_thread_lane() else _awaited(answer, name)


async def _awaited(answer: Awaitable[Any], name: str) -> Any:
    return _read(await answer, name)


def _read(answer: Any, name: str) -> Any:
    if answer is None:
        return None
    outcome = as_outcome(answer)
    if outcome is None:
        check_finished(answer, name)
    elif not isinstance(outcome, Ack):
        # Returned, it would be lost where the caller drops what handle() answers.
        raise outcome
    return answer


class _Typed:
    """The methods of a handler, some of them called as their signatures say."""

    def __init__(self, handler: ConsumerHandler, calls: dict[str, Callable[..., Any]]) -> None:
        self.__dict__.update(calls)
        self._handler = handler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)


@dataclass(frozen=True)
class HandlerProblems:
    """Findings about a handler class: methods that it lacks, messages about listed wildcards that
    have no method, and the reason why a method cannot be called."""

    handler: type[ConsumerHandler]
    missing: Sequence[str] = ()
    without_method: Sequence[str] = ()
    uncallable: str | None = None


def made_handlers() -> Iterator[ConsumerHandler]:
    """Yield an instance of each handler of the installed apps that nothing derives from, and that
    can be made without arguments."""
    for handler in _project_classes():
        try:
            made = _made_quietly(handler)
        except Exception:  # noqa: S112 - whatever it is, the start of its consumer tells
            continue
        yield made


def project_handlers() -> Iterator[HandlerProblems]:
    """Yield the problems of the handlers of the installed apps that nothing derives from.

    A handler that needs arguments is left out: the worker looks at it."""
    for handler in _project_classes():
        try:
            yield _problems(handler, _made_quietly(handler))
        except ConfigurationError as error:
            yield HandlerProblems(handler, uncallable=str(error))
        except Exception:  # noqa: S112 - whatever it is, the start of its consumer tells
            continue


def _problems(handler: type[ConsumerHandler], made: ConsumerHandler) -> HandlerProblems:
    missing = list(dict.fromkeys(made.validate_handlers()))
    wildcards = [_without_method(each) for each in made.wildcards_without_method()]
    return HandlerProblems(handler, missing, wildcards)


def _project_classes() -> Iterator[type[ConsumerHandler]]:
    for handler in dict.fromkeys(_leaves(ConsumerHandler)):
        if apps.get_containing_app_config(handler.__module__):
            yield handler


def _leaves(handler: type[ConsumerHandler]) -> Iterator[type[ConsumerHandler]]:
    for heir in handler.__subclasses__():
        if heir.__subclasses__():
            yield from _leaves(heir)
        else:
            yield heir


def _made_quietly(handler: type[ConsumerHandler]) -> ConsumerHandler:
    # What it warns of when it is made is for the worker's log.
    was_disabled, logger.disabled = logger.disabled, True
    try:
        return handler()
    finally:
        logger.disabled = was_disabled


def _has_wildcard(subject: str) -> bool:
    return "*" in subject or ">" in subject or has_names(subject)


def _without_method(wildcard: str) -> str:
    return (
        f"the wildcard {wildcard!r} in the subject list has no method. Mark one with "
        f"@handle({wildcard!r})."
    )


def _method_name(subject: str) -> str:
    tokens = subject.replace(".", "_").replace("-", "_").split("_")
    return "handle_" + "_".join(tokens[1:] or tokens)


def _recommend_dots(subjects: list[str]) -> None:
    if subjects:
        logger.info(
            "RECOMMENDATION: separate the tokens of a subject with dots, as in 'orders.created', "
            "so that filters such as 'orders.*' can match: %s",
            subjects,
        )
