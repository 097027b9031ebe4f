"""A server in memory: streams by connection, and the publisher that stores in them."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from nats_consumer.api import PubAck, StreamConfig
from nats_consumer.exceptions import NoResponders, NoStreamResponse, NotStored, Unreachable
from nats_consumer.publish.drafts import MSG_ID, Draft
from nats_consumer.publish.times import SCHEDULE, time_of
from nats_consumer.testing.capture import STREAM, Published

from .streams import Stream

if TYPE_CHECKING:
    from nats_consumer._native import Drafts, Msg, Router


class Server:
    """The streams of one connection. If it `is_strict`, a message that no stream has the subject of
    is refused, as by a server; otherwise it is stored nowhere."""

    def __init__(self, streams: Iterable[StreamConfig], *, is_strict: bool) -> None:
        self.streams: dict[str, Stream] = {}
        self.is_strict = is_strict
        self._router: tuple[Router, list[str]] | None = None
        self._places = 0
        for config in streams:
            self.add(config)

    def add(self, config: StreamConfig) -> Stream:
        """Add a stream; one of this name is replaced."""
        stream = self.streams[str(config.name)] = Stream(config)
        self._router = None
        return stream

    def store(self, draft: Draft, now: int) -> PubAck | None:
        """Store the message; None if no stream has its subject. Raises NoStreamResponse and
        MessageRefused."""
        subject, _, headers = draft
        name = self._name_for(subject)
        if name is None and self.is_strict:
            raise NoStreamResponse(f"No stream has the subject {subject}.")
        if name is None:
            return None
        at = time_of((headers or {}).get(SCHEDULE))
        if at is None:
            return self.streams[name].store(draft, now)
        place = f"_later.{self._token(headers)}.{subject}"
        if self._name_for(place) != name:
            raise NoStreamResponse(
                f"The stream {name} has no place for what waits: add its subjects behind _later.*."
            )
        # The code that publishes reads the real clock.
        wait = at - datetime.now(UTC)
        due = now + max(0, wait // timedelta(microseconds=1)) * 1000
        return self.streams[name].wait(place, draft, due, now)

    def _token(self, headers: Mapping[str, str] | None) -> str:
        msg_id = (headers or {}).get(MSG_ID)
        if msg_id is None:
            self._places += 1
            return str(self._places)
        return quote(msg_id, safe="").replace(".", "%2E").replace("~", "%7E")

    def take_due(self, now: int) -> list[Draft]:
        """The messages for later that are due, which do not wait any more."""
        return [draft for stream in self.streams.values() for draft in stream.take_due(now)]

    def next_due(self) -> int | None:
        """When the next message for later is due."""
        due = [stream.next_due() for stream in self.streams.values()]
        return min((each for each in due if each is not None), default=None)

    def _name_for(self, subject: str) -> str | None:
        from nats_consumer import _native

        if self._router is None:
            pairs = [
                (each, stream.name) for stream in self.streams.values() for each in stream.subjects
            ]
            first = dict(reversed(pairs))
            self._router = _native.Router(list(first)), list(first.values())
        router, names = self._router
        index = router.find(subject)
        return None if index is None else names[index]


class ModelPublisher:
    """Stands in for the engine's publisher of one connection."""

    def __init__(
        self,
        published: list[Published],
        using: str,
        store: Callable[[Draft, str], PubAck | None],
    ) -> None:
        self._published = published
        self._using = using
        self._store = store

    def publish(self, draft: Draft, timeout: float) -> PubAck:  # noqa: ARG002
        """Store it, and note it as published."""
        from nats_consumer import _native

        _native.check_draft(draft)
        ack = self._store(draft, self._using)
        self._published.append(Published(*draft, self._using))
        return ack or PubAck(stream=STREAM, seq=len(self._published))

    async def apublish(self, draft: Draft, timeout: float) -> PubAck:  # noqa: ASYNC109
        """publish() for async code."""
        return self.publish(draft, timeout)

    def publish_many(
        self, drafts: "Drafts", timeout: float
    ) -> tuple[list[PubAck], list[tuple[int, Exception]]]:
        """Store all of them; the errors have their numbers."""
        stored: list[PubAck] = []
        failed: list[tuple[int, Exception]] = []
        for index in range(len(drafts)):
            try:
                stored.append(self.publish(drafts[index], timeout))
            except (NoStreamResponse, NotStored, Unreachable) as error:
                failed.append((index, error))
        return stored, failed

    def request(self, draft: Draft, timeout: float) -> "Msg":
        """Nobody answers in a test."""
        self.publish(draft, timeout)
        raise NoResponders(f"Nobody answers on {draft[0]}: the test kit sends nothing.")

    async def arequest(self, draft: Draft, timeout: float) -> "Msg":  # noqa: ASYNC109
        """request() for async code."""
        return self.request(draft, timeout)

    def nudge(self, subject: str) -> None:
        """Nobody listens."""

    def max_payload(self) -> None:
        """No limit is known: that of a server's default counts."""
