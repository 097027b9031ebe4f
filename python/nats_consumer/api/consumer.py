"""A stream's consumer: how it is configured, and how far it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .cluster import ClusterInfo
from .wire import Struct, each_in_seconds, moment, seconds, struct


class DeliverPolicy(StrEnum):
    """Start position of a new durable in its stream."""

    ALL = "all"
    LAST = "last"
    NEW = "new"
    BY_START_SEQUENCE = "by_start_sequence"
    BY_START_TIME = "by_start_time"
    LAST_PER_SUBJECT = "last_per_subject"


class AckPolicy(StrEnum):
    """How deliveries are acknowledged: not, up to a message, or each."""

    NONE = "none"
    ALL = "all"
    EXPLICIT = "explicit"
    FLOW_CONTROL = "flow_control"


class ReplayPolicy(StrEnum):
    """How fast old messages are delivered: at once, or as they once came."""

    INSTANT = "instant"
    ORIGINAL = "original"


@dataclass
class ConsumerConfig(Struct):
    """A consumer's configuration, with the server's names; times in seconds."""

    name: str | None = None
    durable_name: str | None = None
    description: str | None = None
    deliver_policy: DeliverPolicy | str | None = DeliverPolicy.ALL
    opt_start_seq: int | None = None
    opt_start_time: datetime | str | None = moment()
    ack_policy: AckPolicy | str | None = AckPolicy.EXPLICIT
    ack_wait: float | None = seconds()
    max_deliver: int | None = None
    backoff: Sequence[float] | None = each_in_seconds()
    filter_subject: str | None = None
    filter_subjects: Sequence[str] | None = None
    replay_policy: ReplayPolicy | str | None = ReplayPolicy.INSTANT
    rate_limit_bps: int | None = None
    sample_freq: str | None = None
    max_waiting: int | None = None
    max_ack_pending: int | None = None
    flow_control: bool | None = None
    idle_heartbeat: float | None = seconds()
    headers_only: bool | None = None
    deliver_subject: str | None = None
    deliver_group: str | None = None
    inactive_threshold: float | None = seconds()
    num_replicas: int | None = None
    mem_storage: bool | None = None
    metadata: Mapping[str, str] | None = None
    pause_until: str | None = None


@dataclass(frozen=True, kw_only=True)
class SequenceInfo(Struct):
    """A position in a consumer and in its stream."""

    consumer_seq: int
    stream_seq: int
    last_active: datetime | None = moment()


@dataclass(frozen=True, kw_only=True)
class ConsumerInfo(Struct):
    """How far a consumer is."""

    name: str
    stream_name: str
    config: ConsumerConfig = struct(ConsumerConfig)
    created: datetime | None = moment()
    delivered: SequenceInfo = struct(SequenceInfo)
    ack_floor: SequenceInfo = struct(SequenceInfo)
    num_ack_pending: int
    num_redelivered: int
    num_waiting: int
    num_pending: int
    cluster: ClusterInfo | None = struct(ClusterInfo)
    push_bound: bool | None = None
    paused: bool | None = None
    pause_remaining: int | None = None


@dataclass(frozen=True, kw_only=True)
class ConsumerPause(Struct):
    """Whether a consumer is paused, until when (RFC 3339), and for how many nanoseconds more."""

    paused: bool
    pause_until: str | None = None
    pause_remaining: int | None = None


@dataclass(frozen=True, kw_only=True)
class ConsumerReset:
    """A consumer after its position was changed: the next message comes from `reset_seq` on."""

    info: ConsumerInfo
    reset_seq: int
