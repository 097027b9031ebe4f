"""ConsumerOptions: what the engine needs to run a consumer, read from its attributes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.utils.timezone import is_naive, make_aware

from nats_consumer import settings
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.names import check_stream_name
from nats_consumer.outcomes import ErrorAckBehavior
from nats_consumer.validation import number, whole

from . import once
from .batches import batching, common_errors, handler_of, is_batch
from .declaration import Declared, class_of, declared, is_overridden
from .durable import durable_of
from .filters import filter_of
from .retry import retry_policy
from .signatures import check_signatures

# Each thread holds a database connection, so threads are not as cheap as tasks.
_DEFAULT_THREADS = 10

# How long the server keeps the durable of a process that was lost, or is away.
_EPHEMERAL_SECONDS = 300.0

# The deliver policies that need one more attribute.
START_ATTRIBUTES = {"by_start_sequence": "start_sequence", "by_start_time": "start_time"}
_STARTS = {"start_sequence": "the number of a message", "start_time": "a datetime"}
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
    connection: str
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
    manages_durable: bool
    ephemeral: float | None
    announce: bool
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
    max_batch: int | None
    max_batch_bytes: int
    max_batch_wait: float


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Values of the command line for every consumer it runs; None leaves the attribute."""

    batch_size: int | None = None
    fetch_timeout: float | None = None
    concurrency: int | None = None


def consumer_options(consumer: Declared, overrides: Overrides | None = None) -> ConsumerOptions:
    """The options that the attributes describe. Raises ConfigurationError, naming the consumer
    and everything that is wrong with it.

    A class is judged by its attributes alone. If it overrides get_durable_name() or
    get_filter_subject(), their answers are read from an instance only."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for fields, read in _READERS.items():
        try:
            value = read(consumer, overrides or Overrides())
        except (ConfigurationError, ValueError) as error:
            faults.append(str(error))
        else:
            values |= _assigned(fields, value)
    if faults:
        # Two fields may be read from one wrong attribute.
        told = " ".join(dict.fromkeys(faults))
        raise ConfigurationError(f"{class_of(consumer).__name__} cannot run: {told}")
    return ConsumerOptions(**values)


def read_batch_size(value: object) -> int:
    """`value` if it can be a batch_size. Raises ConfigurationError."""
    return whole(value, "batch_size", least=1)


def read_concurrency(value: object) -> int:
    """`value` if it can be a concurrency. Raises ConfigurationError."""
    return whole(value, "concurrency", least=1)


def read_fetch_timeout(value: object) -> float:
    """`value`, in seconds, if it can be a fetch_timeout. Raises ConfigurationError."""
    return number(value, "fetch_timeout", least=1)


def _kind(consumer: Declared) -> str:
    if not consumer.kind:
        raise ConfigurationError(
            "it is neither a pull nor a push consumer. Derive it from JetstreamPullConsumer or "
            "JetstreamPushConsumer."
        )
    return consumer.kind


def _stream(consumer: Declared) -> str:
    if not consumer.stream_name:
        raise ConfigurationError("it has no stream_name. Set it to the stream to consume.")
    return check_stream_name(consumer.stream_name, "stream_name")


def _concurrency(consumer: Declared, overrides: Overrides) -> int:
    if consumer.ordered:
        return 1
    given = _either(overrides.concurrency, consumer.concurrency)
    if given is not None:
        return read_concurrency(given)
    if consumer.kind == "push" or is_batch(consumer):
        return 1
    batch_size = _batch_size(consumer, overrides)
    is_async = iscoroutinefunction(handler_of(consumer))
    return batch_size if is_async else min(batch_size, _DEFAULT_THREADS)


def _batch_size(consumer: Declared, overrides: Overrides) -> int:
    return read_batch_size(_either(overrides.batch_size, consumer.batch_size))


def _fetch_timeout(consumer: Declared, overrides: Overrides) -> float:
    return read_fetch_timeout(_either(overrides.fetch_timeout, consumer.fetch_timeout))


def _ack_wait(consumer: Declared) -> float:
    return number(consumer.ack_wait, "ack_wait", least=0.1)


def _max_ack_pending(consumer: Declared) -> int | None:
    if consumer.ordered:
        return 1
    value = consumer.max_ack_pending
    return None if value is None else whole(value, "max_ack_pending", least=1)


def _handler_timeout(consumer: Declared) -> float | None:
    value = consumer.handler_timeout
    return None if value is None else number(value, "handler_timeout", least=0.001)


def _deliver_policy(consumer: Declared) -> tuple[str, int | None, str | None]:
    value = consumer.deliver_policy
    policy = str(getattr(value, "value", value))
    if consumer.ephemeral and not declared(consumer, ("deliver_policy",)):
        policy = "new"
    if policy not in _DELIVER_POLICIES:
        raise ConfigurationError(
            f"deliver_policy must be one of {_DELIVER_POLICIES}, not {value!r}."
        )
    needed = START_ATTRIBUTES.get(policy)
    if needed and getattr(consumer, needed) is None:
        raise ConfigurationError(
            f"deliver_policy {policy!r} needs {needed}. Set it to {_STARTS[needed]}."
        )
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


def _ephemeral(consumer: Declared) -> float | None:
    if not isinstance(consumer.ephemeral, bool):
        raise ConfigurationError(f"ephemeral must be True or False, not {consumer.ephemeral!r}.")
    if not consumer.ephemeral:
        return None
    if consumer.durable_name or is_overridden(consumer, "get_durable_name"):
        raise ConfigurationError(
            "with ephemeral = True each process has a durable of its own. Remove durable_name and "
            "get_durable_name()."
        )
    if not settings.manage_durables():
        raise ConfigurationError(
            "with ephemeral = True the worker makes a durable, which "
            'NATS_CONSUMER["manage_durables"] = False forbids.'
        )
    return _EPHEMERAL_SECONDS


def _exhausted(consumer: Declared) -> str:
    behavior = consumer.handle_error_ack_behavior
    if not isinstance(behavior, ErrorAckBehavior):
        raise ConfigurationError(
            "handle_error_ack_behavior must be ErrorAckBehavior."
            f"{', '.join(each.name for each in ErrorAckBehavior)}, not {behavior!r}."
        )
    return _EXHAUSTED[behavior]


def _check_invalid(consumer: Declared) -> None:
    """Raises ConfigurationError for what invalid_ack_behavior cannot be."""
    behavior: object = consumer.invalid_ack_behavior
    left = ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
    if not isinstance(behavior, ErrorAckBehavior) or behavior is left:
        raise ConfigurationError(
            f"invalid_ack_behavior must be DEAD_LETTER, TERM, ACK or NAK of ErrorAckBehavior, not "
            f"{behavior!r}."
        )


def _either(override: object, attribute: object) -> object:
    return attribute if override is None else override


def _retries(consumer: Declared) -> tuple[int, float, float, float, list[float]]:
    policy = retry_policy(consumer)
    delays = list(policy.delays)
    return policy.max_attempts, policy.initial_delay, policy.max_delay, policy.factor, delays


def _assigned(fields: str | tuple[str, ...], value: Any) -> dict[str, Any]:
    return {fields: value} if isinstance(fields, str) else dict(zip(fields, value, strict=True))


def _check_others(consumer: Declared) -> tuple[()]:
    """No field, but conditions of all of them."""
    handler_of(consumer)
    check_signatures(consumer)
    common_errors(consumer)
    _check_invalid(consumer)
    _check_order(consumer)
    once.check(consumer, is_async=iscoroutinefunction(handler_of(consumer)))
    return ()


def _check_order(consumer: Declared) -> None:
    """Raises ConfigurationError for what contradicts `ordered`, or is to be decided beside it."""
    if not isinstance(consumer.ordered, bool):
        raise ConfigurationError(f"ordered must be True or False, not {consumer.ordered!r}.")
    if not consumer.ordered:
        return
    if contradicting := declared(consumer, ("concurrency", "max_ack_pending")):
        raise ConfigurationError(
            f"ordered = True handles one message at a time. Remove {' and '.join(contradicting)}."
        )
    if not declared(consumer, ("handle_error_ack_behavior",)):
        raise ConfigurationError(
            "with ordered = True a message that fails holds up all others, so choose what follows "
            "its last attempt. Set handle_error_ack_behavior: NAK tries it until it succeeds, "
            "DEAD_LETTER goes on without it."
        )


_Reader = Callable[[Declared, Overrides], Any]

# The fields of ConsumerOptions, each with its reader. One reader may give several fields.
_READERS: dict[str | tuple[str, ...], _Reader] = {
    "name": lambda consumer, _: class_of(consumer).__name__,
    "connection": lambda consumer, _: settings.check_connection(consumer.connection),
    "kind": lambda consumer, _: _kind(consumer),
    (): lambda consumer, _: _check_others(consumer),
    "stream": lambda consumer, _: _stream(consumer),
    ("durable", "durable_is_derived"): lambda consumer, _: durable_of(consumer),
    "filter_subjects": lambda consumer, _: filter_of(consumer),
    ("deliver_policy", "start_sequence", "start_time"): (
        lambda consumer, _: _deliver_policy(consumer)
    ),
    (
        "max_attempts",
        "initial_retry_delay",
        "max_retry_delay",
        "backoff_factor",
        "retry_delays",
    ): lambda consumer, _: _retries(consumer),
    "exhausted": lambda consumer, _: _exhausted(consumer),
    "batch_size": _batch_size,
    "concurrency": _concurrency,
    "fetch_timeout": _fetch_timeout,
    "ack_wait": lambda consumer, _: _ack_wait(consumer),
    "max_ack_pending": lambda consumer, _: _max_ack_pending(consumer),
    "handler_timeout": lambda consumer, _: _handler_timeout(consumer),
    ("max_batch", "max_batch_bytes", "max_batch_wait"): lambda consumer, _: batching(consumer),
    "manages_durable": lambda _consumer, _: settings.manage_durables(),
    "announce": lambda _consumer, _: settings.announce(),
    "ephemeral": lambda consumer, _: _ephemeral(consumer),
}
