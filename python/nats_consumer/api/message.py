"""A stored message, and the headers that a stream understands."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from .wire import Struct, from_timestamp, moment


class Header(StrEnum):
    """Headers with a meaning for JetStream."""

    BATCH_COMMIT = "Nats-Batch-Commit"
    BATCH_ID = "Nats-Batch-Id"
    BATCH_SEQUENCE = "Nats-Batch-Sequence"
    CONSUMER_STALLED = "Nats-Consumer-Stalled"
    DESCRIPTION = "Description"
    EXPECTED_LAST_MSG_ID = "Nats-Expected-Last-Msg-Id"
    EXPECTED_LAST_SEQUENCE = "Nats-Expected-Last-Sequence"
    EXPECTED_LAST_SUBJECT_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
    EXPECTED_STREAM = "Nats-Expected-Stream"
    INCR = "Nats-Incr"
    LAST_CONSUMER = "Nats-Last-Consumer"
    LAST_STREAM = "Nats-Last-Stream"
    MSG_ID = "Nats-Msg-Id"
    MSG_TTL = "Nats-TTL"
    ROLLUP = "Nats-Rollup"
    SCHEDULE = "Nats-Schedule"
    SCHEDULE_NEXT = "Nats-Schedule-Next"
    SCHEDULE_ROLLUP = "Nats-Schedule-Rollup"
    SCHEDULE_SOURCE = "Nats-Schedule-Source"
    SCHEDULE_TARGET = "Nats-Schedule-Target"
    SCHEDULE_TIME_ZONE = "Nats-Schedule-Time-Zone"
    SCHEDULE_TTL = "Nats-Schedule-TTL"
    SCHEDULER = "Nats-Scheduler"
    STATUS = "Status"


@dataclass(frozen=True, kw_only=True)
class PubAck(Struct):
    """The server's confirmation of a stored message: its stream and sequence number."""

    stream: str
    seq: int
    domain: str | None = None
    duplicate: bool | None = None


@dataclass(frozen=True, kw_only=True)
class RawStreamMsg(Struct):
    """A message as its stream keeps it. `hdrs` is its header block in base64."""

    subject: str
    seq: int
    data: bytes | None = None
    headers: dict[str, str] | None = None
    hdrs: str | None = None
    time: datetime | None = moment()

    @property
    def sequence(self) -> int:
        """Its place in the stream: `seq`."""
        return self.seq

    @property
    def header(self) -> dict[str, str] | None:
        """Its headers: `headers`."""
        return self.headers

    @classmethod
    def from_response(cls, wire: Mapping[str, Any]) -> Self:
        """Read the server's answer to STREAM.MSG.GET."""
        data, headers = wire.get("data"), wire.get("hdrs")
        return cls(
            subject=wire["subject"],
            seq=wire["seq"],
            data=base64.b64decode(data) if data else None,
            headers=parse_headers(base64.b64decode(headers)) if headers else None,
            hdrs=headers,
            time=from_timestamp(wire["time"]),
        )


def parse_headers(block: bytes) -> dict[str, str] | None:
    """The headers of a stored message, of each name the first; None if there are none."""
    headers: dict[str, str] = {}
    _version, *lines = block.decode(errors="replace").split("\r\n")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name, value.strip())
    return headers or None
