"""The message that a handler gets, as a type for annotations."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Any, Protocol


class SequencePair(Protocol):
    """The place of a message in its stream, and of its delivery in the durable."""

    @property
    def stream(self) -> int:
        """The message's number in the stream."""

    @property
    def consumer(self) -> int:
        """The delivery's number in the durable."""


class Metadata(Protocol):
    """The metadata of a delivery, as the server reports it."""

    @property
    def sequence(self) -> SequencePair:
        """The message's number in the stream, and the delivery's in the durable."""

    @property
    def num_delivered(self) -> int:
        """Number of deliveries of this message, with this one."""

    @property
    def num_pending(self) -> int:
        """Number of messages that the durable has not delivered yet."""

    @property
    def timestamp(self) -> datetime:
        """The time when the stream stored the message."""

    @property
    def stream(self) -> str:
        """The stream."""

    @property
    def consumer(self) -> str:
        """The durable."""

    @property
    def domain(self) -> str | None:
        """The JetStream domain, if the server has one."""


class Message(Protocol):
    """A message that a handler gets: the engine's, or a FakeMessage of a test.

    `ack`, `nak`, `term`, `in_progress` and `ack_sync` act at once and return an awaitable: await
    it in an `async def`, and ignore it in a `def`."""

    @property
    def data(self) -> bytes:
        """The payload."""

    def json(self) -> Any:
        """Return the payload, read as JSON: the answer of `json.loads`, or its error. Each call
        reads it again."""

    @property
    def subject(self) -> str:
        """The subject that it was published to."""

    @property
    def reply(self) -> str:
        """The subject that settles the delivery."""

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers, one value for each name; None if it has none."""

    @property
    def header(self) -> dict[str, str] | None:
        """The same as `headers`."""

    @property
    def metadata(self) -> Metadata:
        """The delivery, as the server reports it."""

    @property
    def attempt(self) -> int:
        """Number of the attempt, starting at 1."""

    @property
    def identity(self) -> str:
        """The identity of the message among those with its subject, the same through redeliveries
        and replays: the Nats-Msg-Id that it was published with, or stream, sequence and time."""

    @property
    def is_acked(self) -> bool:
        """Whether it is settled."""

    def ack(self) -> Awaitable[None]:
        """Settle it as done. This and the others raise MessageAlreadySettled the second time."""

    def nak(self, delay: float | None = None) -> Awaitable[None]:
        """Hand it back, to come again after `delay` seconds."""

    def term(self, reason: str | None = None) -> Awaitable[None]:
        """Discard it."""

    def in_progress(self) -> Awaitable[None]:
        """Tell the server that the handler is still working. The engine does so by itself."""

    def ack_sync(self, timeout: float = 1.0) -> Awaitable[Any]:
        """Settle it as done, and wait at most `timeout` seconds until the server confirms it."""

    def copy_to_dlq(self, reason: str) -> Awaitable[Any]:
        """Store a copy in the dead letter stream. The message stays to be settled."""
