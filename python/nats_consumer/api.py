"""The JetStream API's own structs: configurations and what the server answers.

Times are seconds here and nanoseconds on the wire. Every enum is a `str`, so a plain string does
as well. A field that is None is not sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, Self

_NANOSECONDS = 1_000_000_000


class RetentionPolicy(StrEnum):
    """When a stream lets a message go."""

    LIMITS = "limits"
    INTEREST = "interest"
    WORK_QUEUE = "workqueue"


class StorageType(StrEnum):
    """Where a stream keeps its messages."""

    FILE = "file"
    MEMORY = "memory"


class DiscardPolicy(StrEnum):
    """What a full stream refuses: the oldest message or the new one."""

    OLD = "old"
    NEW = "new"


class DeliverPolicy(StrEnum):
    """Where a new durable starts in its stream."""

    ALL = "all"
    LAST = "last"
    NEW = "new"
    BY_START_SEQUENCE = "by_start_sequence"
    BY_START_TIME = "by_start_time"
    LAST_PER_SUBJECT = "last_per_subject"


class StoreCompression(StrEnum):
    """How a file store is compressed."""

    NONE = "none"
    S2 = "s2"


def to_nanoseconds(seconds: float | timedelta) -> int:
    """Seconds, or a timedelta, as the server counts them."""
    value = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    return round(value * _NANOSECONDS)


def from_nanoseconds(nanoseconds: int) -> float:
    """What the server counts, in seconds."""
    return nanoseconds / _NANOSECONDS


def _time() -> Any:
    return field(default=None, metadata={"seconds": True})


@dataclass(kw_only=True)
class StreamConfig:
    """A stream's configuration, with the server's names."""

    name: str | None = None
    description: str | None = None
    subjects: Sequence[str] | None = None
    retention: RetentionPolicy | str | None = None
    max_consumers: int | None = None
    max_msgs: int | None = None
    max_bytes: int | None = None
    discard: DiscardPolicy | str | None = None
    discard_new_per_subject: bool | None = None
    max_age: float | None = _time()
    max_msgs_per_subject: int | None = None
    max_msg_size: int | None = None
    storage: StorageType | str | None = None
    num_replicas: int | None = None
    no_ack: bool | None = None
    template_owner: str | None = None
    duplicate_window: float | None = _time()
    placement: Mapping[str, Any] | None = None
    mirror: Mapping[str, Any] | None = None
    sources: Sequence[Mapping[str, Any]] | None = None
    sealed: bool | None = None
    deny_delete: bool | None = None
    deny_purge: bool | None = None
    allow_rollup_hdrs: bool | None = None
    republish: Mapping[str, Any] | None = None
    subject_transform: Mapping[str, Any] | None = None
    allow_direct: bool | None = None
    mirror_direct: bool | None = None
    compression: StoreCompression | str | None = None
    first_seq: int | None = None
    metadata: Mapping[str, str] | None = None
    consumer_limits: Mapping[str, Any] | None = None
    allow_msg_ttl: bool | None = None
    subject_delete_marker_ttl: float | None = _time()
    allow_msg_schedules: bool | None = None
    allow_msg_counter: bool | None = None
    allow_atomic: bool | None = None
    allow_batched: bool | None = None
    persist_mode: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """What goes over the wire: the fields that are set."""
        wire: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None:
                continue
            if each.metadata.get("seconds"):
                value = to_nanoseconds(value)
            wire[each.name] = _plain(value)
        if "inactive_threshold" in wire.get("consumer_limits", {}):
            limits = wire["consumer_limits"]
            limits["inactive_threshold"] = to_nanoseconds(limits["inactive_threshold"])
        return wire

    @classmethod
    def from_response(cls, wire: Mapping[str, Any]) -> Self:
        """The configuration that the server sent; fields unknown to this class are left out."""
        values: dict[str, Any] = {}
        for each in fields(cls):
            value = wire.get(each.name)
            if value is not None:
                values[each.name] = (
                    from_nanoseconds(value) if each.metadata.get("seconds") else value
                )
        limits = values.get("consumer_limits", {})
        if "inactive_threshold" in limits:
            seconds = from_nanoseconds(limits["inactive_threshold"])
            values["consumer_limits"] = {**limits, "inactive_threshold": seconds}
        return cls(**values)

    def evolve(self, **changes: Any) -> Self:
        """A copy with the `changes`."""
        return replace(self, **changes)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, kw_only=True)
class PubAck:
    """The server's word that a message is stored: where, and as which number."""

    stream: str
    seq: int
    domain: str | None = None
    duplicate: bool | None = None


@dataclass(frozen=True, kw_only=True)
class StreamState:
    """What a stream holds."""

    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    consumer_count: int


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """A stream's configuration and state."""

    config: StreamConfig
    state: StreamState
    created: datetime | None = None

    @classmethod
    def from_response(cls, wire: Mapping[str, Any]) -> Self:
        """What the server answered to STREAM.INFO, STREAM.CREATE or STREAM.UPDATE."""
        state = wire["state"]
        return cls(
            config=StreamConfig.from_response(wire["config"]),
            state=StreamState(**{each.name: state[each.name] for each in fields(StreamState)}),
            created=_timestamp(wire.get("created")),
        )


@dataclass(frozen=True, kw_only=True)
class SequenceInfo:
    """A position in a consumer and in its stream."""

    consumer_seq: int
    stream_seq: int


@dataclass(frozen=True, kw_only=True)
class ConsumerInfo:
    """How far a durable is. `config` is as the server sent it: times are nanoseconds."""

    name: str
    stream_name: str
    config: Mapping[str, Any]
    delivered: SequenceInfo
    ack_floor: SequenceInfo
    num_ack_pending: int
    num_redelivered: int
    num_waiting: int
    num_pending: int
    push_bound: bool = False

    @classmethod
    def from_response(cls, wire: Mapping[str, Any]) -> Self:
        """What the server answered to CONSUMER.INFO."""
        known = {each.name: wire[each.name] for each in fields(cls) if each.name in wire}
        for place in ("delivered", "ack_floor"):
            known[place] = SequenceInfo(
                consumer_seq=wire[place]["consumer_seq"], stream_seq=wire[place]["stream_seq"]
            )
        return cls(**known)


def _timestamp(text: str | None) -> datetime | None:
    if text is None:
        return None
    # The server writes nanoseconds; datetime holds microseconds.
    moment, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{moment}.{fraction[:6]:0<6}+00:00")
