"""A stream: how it is configured, and what it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from .cluster import ClusterInfo
from .source import RePublish, StreamSource, StreamSourceInfo, SubjectTransform
from .wire import Struct, moment, seconds, struct, structs


class RetentionPolicy(StrEnum):
    """When a stream lets a message go."""

    LIMITS = "limits"
    INTEREST = "interest"
    WORK_QUEUE = "workqueue"


class StorageType(StrEnum):
    """Storage of a stream's messages."""

    FILE = "file"
    MEMORY = "memory"


class DiscardPolicy(StrEnum):
    """Policy of a full stream: discard the oldest message or refuse the new one."""

    OLD = "old"
    NEW = "new"


class StoreCompression(StrEnum):
    """How a file store is compressed."""

    NONE = "none"
    S2 = "s2"


class PersistMode(StrEnum):
    """Whether a message is confirmed before it is on disk."""

    DEFAULT = "default"
    ASYNC = "async"


@dataclass
class Placement(Struct):
    """On which servers a stream may live."""

    cluster: str | None = None
    tags: Sequence[str] | None = None


@dataclass
class StreamConsumerLimits(Struct):
    """Limits for the consumers of a stream; `inactive_threshold` in seconds."""

    inactive_threshold: float | None = seconds()
    max_ack_pending: int | None = None


@dataclass
class StreamConfig(Struct):
    """A stream's configuration, with the server's names; times in seconds."""

    name: str | None = None
    description: str | None = None
    subjects: Sequence[str] | None = None
    retention: RetentionPolicy | str | None = None
    max_consumers: int | None = None
    max_msgs: int | None = None
    max_bytes: int | None = None
    discard: DiscardPolicy | str | None = None
    discard_new_per_subject: bool | None = None
    max_age: float | None = seconds()
    max_msgs_per_subject: int | None = None
    max_msg_size: int | None = None
    storage: StorageType | str | None = None
    num_replicas: int | None = None
    no_ack: bool | None = None
    template_owner: str | None = None
    duplicate_window: float | None = seconds()
    placement: Placement | Mapping[str, Any] | None = struct(Placement)
    mirror: StreamSource | Mapping[str, Any] | None = struct(StreamSource)
    sources: Sequence[StreamSource | Mapping[str, Any]] | None = structs(StreamSource)
    sealed: bool | None = None
    deny_delete: bool | None = None
    deny_purge: bool | None = None
    allow_rollup_hdrs: bool | None = None
    first_seq: int | None = None
    republish: RePublish | Mapping[str, Any] | None = struct(RePublish)
    subject_transform: SubjectTransform | Mapping[str, Any] | None = struct(SubjectTransform)
    allow_direct: bool | None = None
    mirror_direct: bool | None = None
    compression: StoreCompression | str | None = None
    allow_msg_ttl: bool | None = None
    allow_msg_schedules: bool | None = None
    allow_atomic: bool | None = None
    allow_batched: bool | None = None
    allow_msg_counter: bool | None = None
    persist_mode: PersistMode | str | None = None
    metadata: Mapping[str, str] | None = None
    consumer_limits: StreamConsumerLimits | Mapping[str, Any] | None = struct(StreamConsumerLimits)
    subject_delete_marker_ttl: float | None = seconds()


@dataclass(frozen=True, kw_only=True)
class LostStreamData(Struct):
    """Messages that a damaged store has lost."""

    msgs: list[int] | None = None
    bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class StreamState(Struct):
    """Content of a stream. `subjects` counts messages by subject if a filter asked for it."""

    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    consumer_count: int
    deleted: list[int] | None = None
    num_deleted: int | None = None
    lost: LostStreamData | None = struct(LostStreamData)
    subjects: dict[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class StreamInfo(Struct):
    """A stream's configuration and state."""

    config: StreamConfig = struct(StreamConfig)
    state: StreamState = struct(StreamState)
    mirror: StreamSourceInfo | None = struct(StreamSourceInfo)
    sources: list[StreamSourceInfo] | None = structs(StreamSourceInfo)
    cluster: ClusterInfo | None = struct(ClusterInfo)
    did_create: bool | None = None
    created: datetime | None = moment()
