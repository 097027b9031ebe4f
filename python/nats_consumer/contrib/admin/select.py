"""The choice of dead letters in a page's address: which stream, and which of its dead letters."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.http import Http404, QueryDict

from nats_consumer.dead_letters import Selection
from nats_consumer.exceptions import StreamNotFound

from .ask import check_stream, streams

if TYPE_CHECKING:
    from nats_consumer._native import DeadLetters, StoredLetter

_HOUR, _DAY = 3600.0, 86400.0
# Requests for single dead letters at a time.
_AT_ONCE = 16
AGES: dict[str, tuple[str, Selection]] = {
    "": ("Any age", Selection()),
    "hour": ("Past hour", Selection(newer_than=_HOUR)),
    "day": ("Past day", Selection(newer_than=_DAY)),
    "week": ("Past 7 days", Selection(newer_than=7 * _DAY)),
    "older": ("Older than 7 days", Selection(older_than=7 * _DAY)),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Dead letters of one stream: all, or those that match. `consumer` is a durable, `q` a text
    that subject, consumer, reason or error contain, in capitals or not."""

    using: str
    stream: str
    consumer: str = ""
    age: str = ""
    q: str = ""

    @classmethod
    def of(cls, query: QueryDict) -> "Choice":
        """The choice of an address. Without a stream, the first one. Raises Http404 for a stream
        that no consumer of the project reads."""
        known = streams()
        if not known:
            raise Http404("This project has no consumers.")
        using, _, stream = query.get("from", "/".join(known[0])).partition("/")
        age = query.get("age", "")
        check_stream(using, stream)
        if age not in AGES:
            raise Http404("No such age.")
        return cls(
            using=using,
            stream=stream,
            consumer=query.get("consumer", ""),
            age=age,
            q=query.get("q", "").strip(),
        )

    @property
    def source(self) -> str:
        """The stream as addresses have it."""
        return f"{self.using}/{self.stream}"

    @property
    def is_narrowed(self) -> bool:
        """Whether some dead letters of the stream may not match."""
        return bool(self.consumer or self.age or self.q)

    def values(self) -> dict[str, str]:
        """The choice as parameters of an address."""
        rest = {each.name: getattr(self, each.name) for each in fields(self)[2:]}
        return {"from": self.source} | {name: value for name, value in rest.items() if value}

    def address(self, **beside: Any) -> str:
        """The choice as the end of an address."""
        return f"?{urlencode(self.values() | beside)}"

    def but(self, **changes: str) -> "Choice":
        """The choice with other values."""
        return replace(self, **changes)

    def bounds(self, letters: "DeadLetters") -> tuple[int, int] | None:
        """The numbers of the first and the last dead letter that may match; None without any.
        Raises NatsConsumerError."""
        first = next(self._stored(letters), None)
        last = next(self._stored(letters, newest_first=True), None)
        return (first.number, last.number) if first and last else None

    def found(
        self,
        letters: "DeadLetters",
        numbers: range | None = None,
        *,
        newest_first: bool = False,
    ) -> "Iterator[tuple[int, StoredLetter | None]]":
        """Number by number, the dead letter if there is one that matches: between two, a caller can
        look at the clock. Without `numbers`, all of the stream. Raises NatsConsumerError."""
        stored = (
            ((each.number, each) for each in self._stored(letters, newest_first=newest_first))
            if numbers is None
            else _numbered(letters, self.stream, numbers)
        )
        for number, letter in stored:
            yield number, letter if letter and self.takes(letter) else None

    def _stored(
        self, letters: "DeadLetters", *, newest_first: bool = False
    ) -> "Iterator[StoredLetter]":
        # Only this part of the choice lets the server leave something out.
        selection = Selection(newer_than=AGES[self.age][1].newer_than)
        try:
            return iter(letters.select(self.stream, selection, newest_first))
        except StreamNotFound:
            return iter(())  # the stream of a consumer may not exist yet

    def takes(self, letter: "StoredLetter") -> bool:
        """Whether the letter matches. Payload and headers are not looked at: a search must not tell
        what a user may not see."""
        limits, age = AGES[self.age][1], (datetime.now(UTC) - letter.stored).total_seconds()
        texts = (letter.subject, letter.consumer, letter.reason, letter.error or "")
        return (
            self.consumer in ("", letter.consumer)
            and (limits.newer_than is None or age <= limits.newer_than)
            and (limits.older_than is None or age > limits.older_than)
            and any(self.q.casefold() in each.casefold() for each in texts)
        )

    def __str__(self) -> str:
        told = [
            *([f"of {self.consumer}"] if self.consumer else []),
            *([AGES[self.age][0].lower()] if self.age else []),
            *([f"with {self.q!r}"] if self.q else []),
        ]
        return ", ".join(told) or "all"


def numbered(letters: "DeadLetters", stream: str, number: int) -> "StoredLetter | None":
    """The dead letter of this number. What is stored apart from one has no consumer."""
    try:
        found = letters.get(stream, number)
    except StreamNotFound:
        return None
    return found if found and found.consumer else None


def _numbered(
    letters: "DeadLetters", stream: str, numbers: range
) -> "Iterator[tuple[int, StoredLetter | None]]":
    """The dead letters of these numbers, in their order; some are asked for at once."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(numbers), _AT_ONCE):
            part = numbers[start : start + _AT_ONCE]
            found = pool.map(lambda number: numbered(letters, stream, number), part)
            yield from zip(part, found, strict=True)
