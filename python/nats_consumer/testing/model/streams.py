"""Streams in memory: their messages, their limits and the message ids that they know."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from nats_consumer.api import Header, PubAck, StreamConfig
from nats_consumer.exceptions import MessageRefused
from nats_consumer.publish.drafts import MSG_ID, Draft
from nats_consumer.publish.times import SCHEDULE, TTL

SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A server's default: https://docs.nats.io/nats-concepts/jetstream/streams#configuration
_DUPLICATE_WINDOW = 120.0
# A message that a server published at its time has these.
SCHEDULER, SCHEDULE_NEXT = Header.SCHEDULER.value, Header.SCHEDULE_NEXT.value
_MODELLED_HEADERS = {MSG_ID, SCHEDULE, TTL, SCHEDULER, SCHEDULE_NEXT}
# The server's error codes where a stream does not have these settings.
_CODES = {"allow_msg_schedules": 10188, "allow_msg_ttl": 10166}
_NOT_MODELLED = (
    "mirror",
    "sources",
    "subject_transform",
    "republish",
    "first_seq",
    "allow_msg_counter",
)


class NotModelled(NotImplementedError):  # noqa: N818 - what the kit says of itself
    """The test kit has no model of something that a server does. Test it with a real server."""


def moment(nanoseconds: int) -> datetime:
    """The time that is this number of nanoseconds after 1970 began."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


@dataclass(frozen=True)
class StoredMessage:
    """A message in a stream of the test kit. `nanoseconds` is when it was stored, since 1970."""

    stream: str
    sequence: int
    subject: str
    data: bytes
    headers: Mapping[str, str] | None
    nanoseconds: int

    @property
    def msg_id(self) -> str | None:
        """The message id it was published with."""
        return (self.headers or {}).get(MSG_ID)

    @property
    def stored_at(self) -> datetime:
        """When it was stored."""
        return moment(self.nanoseconds)

    def json(self) -> Any:
        """The data, read as JSON."""
        return json.loads(self.data)


class Stream:
    """A stream. Raises NotModelled for a configuration of which there is no model."""

    def __init__(self, config: StreamConfig) -> None:
        self.name = str(config.name)
        self.subjects = list(config.subjects or [])
        self.last = 0
        self._config = config
        self._messages: dict[int, StoredMessage] = {}
        self._ids: dict[str, StoredMessage] = {}
        self._ends: dict[int, int] = {}
        self._later: dict[int, tuple[int, Draft]] = {}
        self._check()

    def __iter__(self) -> Iterator[StoredMessage]:
        return iter(list(self._messages.values()))

    def __contains__(self, message: StoredMessage) -> bool:
        return message.sequence in self._messages

    def store(self, draft: Draft, now: int) -> PubAck:
        """Keep the message, unless its message id is known."""
        subject, data, headers = draft
        self._check_headers(headers)
        self._check_size(data, headers)
        msg_id = (headers or {}).get(MSG_ID)
        known = self._known(msg_id, now)
        if known is not None:
            return PubAck(stream=self.name, seq=known.sequence, duplicate=True)
        self.last += 1
        message = StoredMessage(self.name, self.last, subject, data, headers, now)
        self._messages[self.last] = message
        if TTL in (headers or {}) and SCHEDULE not in (headers or {}):
            self._ends[self.last] = now + _seconds((headers or {})[TTL]) * SECOND
        if msg_id is not None:
            self._ids[msg_id] = message
        self._keep_limits(subject)
        return PubAck(stream=self.name, seq=self.last)

    def wait(self, place: str, draft: Draft, due: int, now: int) -> PubAck:
        """Keep the message at `place`, and give it out from take_due() when it is due."""
        subject, data, headers = draft
        self._check_allows("allow_msg_schedules")
        self._check_allows("allow_msg_ttl")
        ack = self.store((place, data, headers), now)
        if not ack.duplicate:
            for message in self:
                if message.subject == place and message.sequence != ack.seq:
                    self.delete(message)
            own = {SCHEDULER: place, SCHEDULE_NEXT: "purge"}
            kept = {**(headers or {}), **own}
            self._later[ack.seq] = due, (subject, data, _without(kept, SCHEDULE, MSG_ID))
        return ack

    def next_due(self) -> int | None:
        """When the next message that waits is due."""
        return min((due for due, _ in self._waiting().values()), default=None)

    def take_due(self, now: int) -> list[Draft]:
        """The messages that are due, which do not wait any more."""
        due = {number: one for number, one in self._waiting().items() if one[0] <= now}
        for number in due:
            del self._messages[number], self._later[number]
        return [draft for _, draft in sorted(due.values(), key=lambda one: one[0])]

    def _waiting(self) -> dict[int, tuple[int, Draft]]:
        return {number: one for number, one in self._later.items() if number in self._messages}

    def after(self, sequence: int) -> Iterator[StoredMessage]:
        """The messages from this number on."""
        # Numbers, because what is delivered may delete what it stands before.
        for number in range(sequence, self.last + 1):
            if number in self._messages:
                yield self._messages[number]

    def delete(self, message: StoredMessage) -> None:
        """Remove the message, if it is there."""
        self._messages.pop(message.sequence, None)

    def expire(self, now: int) -> None:
        """Remove what is older than max_age or its time to live."""
        age = self._config.max_age
        if not age and not self._ends:
            return
        for message in self:
            ends = [message.nanoseconds + int(age * SECOND)] if age else []
            if message.sequence in self._ends:
                ends.append(self._ends[message.sequence])
            if ends and min(ends) <= now and message.sequence not in self._later:
                self.delete(message)

    def note_settled(self, message: StoredMessage) -> None:
        """A durable needs the message no more: a work queue removes it."""
        if self._config.retention == "workqueue":
            self.delete(message)

    def _known(self, msg_id: str | None, now: int) -> StoredMessage | None:
        known = None if msg_id is None else self._ids.get(msg_id)
        window = self._config.duplicate_window
        seconds = _DUPLICATE_WINDOW if window is None else window
        if known is None or now - known.nanoseconds >= seconds * SECOND:
            return None
        return known

    def _keep_limits(self, subject: str) -> None:
        same = self._config.max_msgs_per_subject or 0
        if same > 0:
            self._discard([each for each in self if each.subject == subject], same)
        most = self._config.max_msgs or 0
        if most > 0:
            self._discard(list(self), most)

    def _discard(self, messages: list[StoredMessage], most: int) -> None:
        for message in messages[: max(0, len(messages) - most)]:
            self.delete(message)

    def _check(self) -> None:
        config = self._config
        wrong = [each.name for each in fields(config) if each.name in _NOT_MODELLED]
        wrong = [name for name in wrong if getattr(config, name)]
        if config.retention == "interest":
            wrong.append("retention = 'interest'")
        if config.discard == "new" and (config.max_msgs or 0) > 0:
            wrong.append("discard = 'new'")
        if wrong:
            raise NotModelled(
                f"The test kit has no model of {' and '.join(wrong)} of the stream {self.name}. "
                "Name another configuration for the test in `streams`, or use a real server."
            )

    def _check_allows(self, setting: str) -> None:
        if not getattr(self._config, setting):
            raise MessageRefused(
                400,
                _CODES[setting],
                f"The stream {self.name} does not allow it: set its {setting}.",
            )

    def _check_size(self, data: bytes, headers: Mapping[str, str] | None) -> None:
        most = self._config.max_msg_size
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        size = len(data) + (len(f"NATS/1.0\r\n{lines}\r\n".encode()) if lines else 0)
        if most is not None and 0 <= most < size:
            raise MessageRefused(
                400,
                10054,
                f"The message has {size} bytes, and the stream {self.name} takes {most}.",
            )

    def _check_headers(self, headers: Mapping[str, str] | None) -> None:
        if TTL in (headers or {}):
            self._check_allows("allow_msg_ttl")
        for name in headers or {}:
            if name.lower().startswith("nats-") and name not in _MODELLED_HEADERS:
                raise NotModelled(
                    f"The test kit has no model of the header {name}, which makes a server act."
                )


def _without(headers: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


def _seconds(ttl: str) -> int:
    try:
        return int(ttl.removesuffix("s"))
    except ValueError:
        raise NotModelled(f"The test kit knows times to live in seconds, not {ttl!r}.") from None
