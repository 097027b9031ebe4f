"""A consumer's attributes become the ConsumerOptions of the engine."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias

from asgiref.sync import iscoroutinefunction
from django.utils.timezone import is_naive, make_aware

from nats_consumer import settings
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.names import check_name, covers, overlap, subject_problem
from nats_consumer.outcomes import ErrorAckBehavior
from nats_consumer.validation import number, whole

from .registry import class_of, label, project_classes
from .retry import retry_policy
from .signatures import check_signatures

if TYPE_CHECKING:
    from nats_consumer.consumer import NatsConsumer

Declaration: TypeAlias = "type[NatsConsumer] | NatsConsumer"

# Each thread holds a database connection, so threads are not as cheap as tasks.
_DEFAULT_THREADS = 10

# The deliver policies that need one more attribute.
START_ATTRIBUTES = {"by_start_sequence": "start_sequence", "by_start_time": "start_time"}
_DELIVER_POLICIES = ("all", "last", "new", "last_per_subject", *START_ATTRIBUTES)

_EXHAUSTED = {
    ErrorAckBehavior.ACK: "ack",
    ErrorAckBehavior.NAK: "nak",
    ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR: "nak",
    ErrorAckBehavior.DEAD_LETTER: "dead_letter",
    ErrorAckBehavior.TERM: "term",
}


@dataclass(frozen=True, kw_only=True)
class ConsumerOptions:
    """One consumer as the engine runs it. Times are seconds. `retry_delays`, where given, replace
    the computed delays, and the last one repeats."""

    name: str
    stream: str
    durable: str
    durable_is_derived: bool
    kind: str
    filter_subjects: list[str]
    concurrency: int
    batch_size: int
    fetch_timeout: float
    ack_wait: float
    max_ack_pending: int | None
    deliver_policy: str
    start_sequence: int | None
    start_time: str | None
    max_attempts: int
    initial_retry_delay: float
    max_retry_delay: float
    backoff_factor: float
    retry_delays: list[float]
    exhausted: str
    handler_timeout: float | None


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What the command line replaces, for every consumer it runs; None leaves the attribute."""

    batch_size: int | None = None
    fetch_timeout: float | None = None
    concurrency: int | None = None


def consumer_options(consumer: Declaration, overrides: Overrides | None = None) -> ConsumerOptions:
    """The options that the attributes describe. Raises ConfigurationError, naming the consumer
    and everything that is wrong with it.

    A class is judged by its attributes alone: what its get_durable_name() and get_filter_subject()
    answer, where it overrides them, is known of an instance only."""
    name = class_of(consumer).__name__
    overrides = overrides or Overrides()
    try:
        return _options(name, consumer, overrides)
    except (ConfigurationError, ValueError) as error:
        faults = " ".join(_faults(consumer, overrides)) or error
        raise ConfigurationError(f"{name} cannot run: {faults}") from error


def _faults(consumer: Declaration, overrides: Overrides) -> list[str]:
    readers: list[Callable[[], object]] = [
        lambda: _kind(consumer),
        lambda: message_handler(consumer),
        lambda: check_signatures(consumer),
        lambda: _stream(consumer),
        lambda: durable_of(consumer),
        lambda: filter_of(consumer),
        lambda: _deliver_policy(consumer),
        lambda: retry_policy(consumer),
        lambda: _exhausted(consumer),
        lambda: _batch_size(consumer, overrides),
        lambda: _own_concurrency(consumer, overrides),
        lambda: _fetch_timeout(consumer, overrides),
        lambda: _ack_wait(consumer),
        lambda: _max_ack_pending(consumer),
        lambda: _handler_timeout(consumer),
    ]
    faults: list[str] = []
    for read in readers:
        try:
            read()
        except (ConfigurationError, ValueError) as error:
            faults.append(str(error))
    return faults


def _options(name: str, consumer: Declaration, overrides: Overrides) -> ConsumerOptions:
    kind = _kind(consumer)
    handler = message_handler(consumer)
    check_signatures(consumer)
    durable, durable_is_derived = durable_of(consumer)
    policy = retry_policy(consumer)
    batch_size = _batch_size(consumer, overrides)
    deliver_policy, start_sequence, start_time = _deliver_policy(consumer)
    return ConsumerOptions(
        name=name,
        stream=_stream(consumer),
        durable=durable,
        durable_is_derived=durable_is_derived,
        kind=kind,
        filter_subjects=filter_of(consumer),
        concurrency=_concurrency(consumer, overrides, handler, batch_size),
        batch_size=batch_size,
        fetch_timeout=_fetch_timeout(consumer, overrides),
        ack_wait=_ack_wait(consumer),
        max_ack_pending=_max_ack_pending(consumer),
        deliver_policy=deliver_policy,
        start_sequence=start_sequence,
        start_time=start_time,
        max_attempts=policy.max_attempts,
        initial_retry_delay=policy.initial_delay,
        max_retry_delay=policy.max_delay,
        backoff_factor=policy.factor,
        retry_delays=list(policy.delays),
        exhausted=_exhausted(consumer),
        handler_timeout=_handler_timeout(consumer),
    )


def read_batch_size(value: object) -> int:
    """`value` if it can be a batch_size. Raises ConfigurationError."""
    return whole(value, "batch_size", least=1)


def read_concurrency(value: object) -> int:
    """`value` if it can be a concurrency. Raises ConfigurationError."""
    return whole(value, "concurrency", least=1)


def read_fetch_timeout(value: object) -> float:
    """`value`, in seconds, if it can be a fetch_timeout. Raises ConfigurationError."""
    return number(value, "fetch_timeout", least=1)


def message_handler(consumer: Declaration) -> Callable[[Any], Any]:
    """The consumer's handle_message. Raises ConfigurationError if there is none."""
    handler: Callable[[Any], Any] | None = getattr(consumer, "handle_message", None)
    if not callable(handler):
        raise ConfigurationError(
            "it has no handle_message. Write `async def handle_message(self, message)`, or the "
            "same with `def` for blocking code."
        )
    return handler


def filter_of(consumer: Declaration) -> list[str]:
    """The subjects that the consumer asks for: those of its get_filter_subject() if it overrides
    that, otherwise its filter, or the first of its subjects. Raises ConfigurationError if it names
    none."""
    if not is_overridden(consumer, "get_filter_subject"):
        return declared_filter(consumer)
    if isinstance(consumer, type):
        return [">"]  # for now: only an instance can say
    return _checked_filters([consumer.get_filter_subject()])


def declared_filter(consumer: Declaration) -> list[str]:
    """The same by the attributes alone."""
    if consumer.filter_subject and consumer.filter_subjects:
        raise ConfigurationError("it sets both filter_subject and filter_subjects. Keep one.")
    if consumer.filter_subject:
        return _checked_filters([consumer.filter_subject])
    filters = _subjects(consumer, "filter_subjects") or _subjects(consumer, "subjects")[:1]
    if not filters:
        raise ConfigurationError(
            "it does not say what to consume. Set filter_subject (such as 'orders.*', or '>' for "
            "the whole stream) or subjects."
        )
    return _checked_filters(filters)


def _checked_filters(filters: list[str]) -> list[str]:
    problems = [problem for problem in map(subject_problem, filters) if problem]
    if problems:
        raise ConfigurationError(f"it cannot filter by that: {'; '.join(problems)}.")
    for one, other in combinations(filters, 2):
        if overlap(one, other):
            raise ConfigurationError(
                f"its filter_subjects {one!r} and {other!r} overlap, which the server refuses. "
                "Keep the wider one, or give each a consumer of its own."
            )
    return filters


def subjects_left_out(consumer: Declaration) -> list[str]:
    """The subjects that will not arrive because, without a filter, only the first one does."""
    if consumer.filter_subject or consumer.filter_subjects:
        return []
    if is_overridden(consumer, "get_filter_subject"):
        return []
    subjects = _subjects(consumer, "subjects")
    return [subject for subject in subjects[1:] if not covers(subjects[0], subject)]


def left_out_message(consumer: Declaration) -> str | None:
    """What to say of the subjects that will not arrive; None if all will."""
    left_out = subjects_left_out(consumer)
    if not left_out:
        return None
    return (
        f"{class_of(consumer).__name__} has no filter, so it gets {consumer.subjects[0]!r} alone; "
        f"these will not arrive: {', '.join(left_out)}. Set filter_subject (such as 'orders.*') "
        "or filter_subjects."
    )


def durable_of(consumer: Declaration) -> tuple[str, bool]:
    """The durable's name: that of its get_durable_name() if it overrides that, otherwise what the
    attributes and settings say; and whether it is made from the class's name because nothing says
    it. Raises ConfigurationError or ValueError."""
    if is_overridden(consumer, "get_durable_name") and not isinstance(consumer, type):
        return check_name(consumer.get_durable_name(), "get_durable_name()"), False
    return declared_durable(consumer)


def declared_durable(consumer: Declaration) -> tuple[str, bool]:
    """The same by the attributes and settings alone."""
    if consumer.durable_name:
        return check_name(consumer.durable_name, "durable_name"), False
    if default := default_durable():
        return default, False
    return class_of(consumer).__name__, True


def default_durable() -> str | None:
    """The durable of the consumers that name none, or None. Raises ConfigurationError if no durable
    can have that name."""
    name = settings.default_durable_name()
    try:
        return check_name(name, 'NATS_CONSUMER["default_durable_name"]') if name else None
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def shared_durables(consumers: Iterable["type[NatsConsumer]"]) -> list[str]:
    """What to say of the classes that would share one durable on one stream."""
    users: dict[tuple[str | None, str], list[type[NatsConsumer]]] = defaultdict(list)
    for consumer in consumers:
        try:
            durable = declared_durable(consumer)[0]
        except (ConfigurationError, ValueError):
            continue  # consumer_options() says so
        if not is_overridden(consumer, "get_durable_name"):
            users[consumer.stream_name, durable].append(consumer)
    return [
        _shared_durable(stream, durable, group)
        for (stream, durable), group in users.items()
        if len(group) > 1
    ]


def _shared_durable(stream: str | None, durable: str, consumers: "list[type[NatsConsumer]]") -> str:
    by_setting = settings.default_durable_name() and not all(c.durable_name for c in consumers)
    cause = ' because of NATS_CONSUMER["default_durable_name"]' if by_setting else ""
    return (
        f"{' and '.join(map(label, consumers))} share the durable {durable!r} on stream "
        f"{stream!r}{cause}, so each would get only a part of the messages. Give each a "
        "durable_name of its own."
    )


def is_overridden(consumer: Declaration, method: str) -> bool:
    """Whether the project has a `method` of its own in the place of NatsConsumer's."""
    return any(method in vars(cls) for cls in project_classes(consumer))


def _kind(consumer: Declaration) -> str:
    if not consumer.kind:
        raise ConfigurationError("derive it from JetstreamPushConsumer or JetstreamPullConsumer.")
    return consumer.kind


def _stream(consumer: Declaration) -> str:
    if not consumer.stream_name:
        raise ConfigurationError("it has no stream_name. Give it the stream to consume from.")
    return check_name(consumer.stream_name, "stream_name")


def _subjects(consumer: Declaration, attribute: str) -> list[str]:
    value = getattr(consumer, attribute) or ()
    if isinstance(value, str):
        raise ConfigurationError(f"{attribute} must be a list of subjects, not the text {value!r}.")
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"{attribute} must be a list of subjects, not {value!r}.")
    return list(value)


def _concurrency(
    consumer: Declaration, overrides: Overrides, handler: Callable[[Any], Any], batch_size: int
) -> int:
    given = _own_concurrency(consumer, overrides)
    if given is not None:
        return given
    if consumer.kind == "push":
        return 1
    return batch_size if iscoroutinefunction(handler) else min(batch_size, _DEFAULT_THREADS)


def _own_concurrency(consumer: Declaration, overrides: Overrides) -> int | None:
    given = _either(overrides.concurrency, consumer.concurrency)
    return None if given is None else read_concurrency(given)


def _batch_size(consumer: Declaration, overrides: Overrides) -> int:
    return read_batch_size(_either(overrides.batch_size, consumer.batch_size))


def _fetch_timeout(consumer: Declaration, overrides: Overrides) -> float:
    return read_fetch_timeout(_either(overrides.fetch_timeout, consumer.fetch_timeout))


def _ack_wait(consumer: Declaration) -> float:
    return number(consumer.ack_wait, "ack_wait", least=0.1)


def _max_ack_pending(consumer: Declaration) -> int | None:
    value = consumer.max_ack_pending
    return None if value is None else whole(value, "max_ack_pending", least=1)


def _handler_timeout(consumer: Declaration) -> float | None:
    value = consumer.handler_timeout
    return None if value is None else number(value, "handler_timeout", least=0.001)


def _deliver_policy(consumer: Declaration) -> tuple[str, int | None, str | None]:
    value = consumer.deliver_policy
    policy = str(getattr(value, "value", value))
    if policy not in _DELIVER_POLICIES:
        raise ConfigurationError(
            f"deliver_policy must be one of {_DELIVER_POLICIES}, not {value!r}."
        )
    needed = START_ATTRIBUTES.get(policy)
    if needed and getattr(consumer, needed) is None:
        raise ConfigurationError(f"deliver_policy {policy!r} needs {needed}.")
    sequence = (
        whole(consumer.start_sequence, "start_sequence", least=1)
        if needed == "start_sequence"
        else None
    )
    time = _rfc3339(consumer.start_time) if needed == "start_time" else None
    return policy, sequence, time


def _rfc3339(value: object) -> str:
    if not isinstance(value, datetime):
        raise ConfigurationError(f"start_time must be a datetime, not {value!r}.")
    aware = make_aware(value) if is_naive(value) else value
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _exhausted(consumer: Declaration) -> str:
    behavior = consumer.handle_error_ack_behavior
    if not isinstance(behavior, ErrorAckBehavior):
        raise ConfigurationError(
            f"handle_error_ack_behavior must be a member of ErrorAckBehavior, not {behavior!r}."
        )
    return _EXHAUSTED[behavior]


def _either(override: object, attribute: object) -> object:
    return attribute if override is None else override
