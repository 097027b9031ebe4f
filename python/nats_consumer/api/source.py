"""Sources of a stream besides publishers, and destinations of its copies."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .wire import Struct, moment, struct, structs


@dataclass
class SubjectTransform(Struct):
    """Subjects that match `src` become `dest`."""

    src: str
    dest: str


@dataclass
class ExternalStream(Struct):
    """A stream behind another API prefix: another account or domain."""

    api: str
    deliver: str | None = None


@dataclass
class StreamConsumerSource(Struct):
    """The consumer, made beforehand, through which a stream is sourced."""

    name: str
    deliver_subject: str


@dataclass
class StreamSource(Struct):
    """A stream to mirror or to copy from."""

    name: str
    opt_start_seq: int | None = None
    opt_start_time: datetime | str | None = moment()
    filter_subject: str | None = None
    external: ExternalStream | None = struct(ExternalStream)
    subject_transforms: Sequence[SubjectTransform] | None = structs(SubjectTransform)
    consumer: StreamConsumerSource | None = struct(StreamConsumerSource)


@dataclass
class RePublish(Struct):
    """Stored messages of `src` are published to `dest` as well."""

    src: str | None = None
    dest: str | None = None
    headers_only: bool | None = None


@dataclass(frozen=True, kw_only=True)
class StreamSourceInfo(Struct):
    """How far a mirror or a copy is behind."""

    name: str
    lag: int | None = None
    active: int | None = None
    error: dict[str, Any] | None = None
