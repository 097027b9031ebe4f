"""A message for a handler, without a server."""

import json
import sys
from collections.abc import Awaitable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from nats_consumer.exceptions import MessageAlreadySettled, SettledTooEarly
from nats_consumer.message import Metadata
from nats_consumer.outcomes import Ack, Drop, Outcome, Retry
from nats_consumer.publish.drafts import MSG_ID, make_draft

from .capture import STREAM


@dataclass(frozen=True)
class FakeSequencePair:
    """The place of a FakeMessage in its stream, and of its delivery."""

    stream: int
    consumer: int


@dataclass(frozen=True)
class FakeMetadata:
    """The metadata of a FakeMessage."""

    sequence: FakeSequencePair
    stream: str
    consumer: str = STREAM
    num_pending: int = 0
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    domain: str | None = None

    @property
    def num_delivered(self) -> int:
        """Number of deliveries, with this one."""
        return self.sequence.consumer


class FakeMessage:
    """A message for a handler, without a server. It takes the same data as publish().

    `outcome` is how it was settled, or None. `dead_letters` are the reasons given to
    send_to_dlq()."""

    def __init__(
        self,
        data: Any = b"",
        *,
        subject: str,
        headers: Mapping[str, str] | None = None,
        attempt: int = 1,
        stream: str = STREAM,
    ) -> None:
        self.subject, self.data, self.headers = make_draft(subject, data, headers, None)
        self.header = self.headers
        self.reply = ""
        self.attempt = attempt
        self.metadata: Metadata = FakeMetadata(sequence=FakeSequencePair(1, attempt), stream=stream)
        self.outcome: Outcome | None = None
        self.dead_letters: list[str] = []
        self._is_open = False
        self._place = uuid4().hex

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Return the class of nats-py's messages if nats-py is loaded, as handlers see it."""
        theirs: type | None = getattr(sys.modules.get("nats.aio.msg"), "Msg", None)
        return theirs or type(self)

    def json(self) -> Any:
        """Return the data, read as JSON."""
        return json.loads(self.data)

    @property
    def identity(self) -> str:
        """Its message id; without one, each message is another one."""
        return (self.headers or {}).get(MSG_ID) or self._place

    def _keep_open(self, is_open: bool) -> None:
        self._is_open = is_open

    @property
    def is_acked(self) -> bool:
        """Whether it is settled."""
        return self.outcome is not None

    _ackd = is_acked

    def ack(self) -> Awaitable[None]:
        """Settle it as done. This and the others raise MessageAlreadySettled the second time."""
        return self._settle(Ack())

    def ack_sync(self, timeout: float = 1.0) -> Awaitable[None]:  # noqa: ARG002
        """Acknowledge, like ack()."""
        return self._settle(Ack())

    def nak(self, delay: float | None = None) -> Awaitable[None]:
        """Hand it back; `delay` is in seconds."""
        return self._settle(Retry(delay))

    def term(self, reason: str | None = None) -> Awaitable[None]:
        """Discard it."""
        return self._settle(Drop(reason or ""))

    def in_progress(self) -> Awaitable[None]:
        """Does nothing."""
        return _Done()

    def copy_to_dlq(self, reason: str) -> Awaitable[None]:
        """Remember the reason."""
        self.dead_letters.append(reason)
        return _Done()

    def _settle(self, outcome: Outcome) -> Awaitable[None]:
        if self._is_open:
            raise SettledTooEarly
        if self.is_acked:
            raise MessageAlreadySettled
        self.outcome = outcome
        return _Done()


class _Done:
    """Awaitable on any loop or none, like what the engine's messages return."""

    is_done_already = True

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()
