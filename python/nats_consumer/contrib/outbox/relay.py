"""The relay: publishes the rows of one database in their order, and deletes what is stored."""

import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from django.db.models import Case, F, Min, QuerySet, TextField, Value, When
from django.db.models.functions import Now

from nats_consumer.exceptions import Denied, PublishError
from nats_consumer.publish.drafts import MSG_ID, Draft, pack
from nats_consumer.publish.publisher import current_publisher
from nats_consumer.terminal import visible

from .lease import Lease
from .models import OutboxMessage
from .window import Windows

if TYPE_CHECKING:
    from nats_consumer._native import Drafts

logger = logging.getLogger("nats_consumer.publish")

BATCH = 500
# How long the streams may take to confirm a batch. With the 3 s that a lease may be old when the
# batch begins, publishing ends before the lease does.
CONFIRM_SECONDS = 5.0
# How often rows before the cursor are looked for: a transaction may commit a lower id later.
_FROM_THE_START_SECONDS = 1.0
# How often refused rows are tried, and the part of the time that they may take: where a stream does
# not answer, each try takes as long as a batch may.
_RETRY_SECONDS = 1.0
_RETRY_SHARE = 0.2
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
# A row takes three parameters, and SQLite had at most 999 in old versions.
_ROWS_A_STATEMENT = 100
_REPORT_SECONDS = 600.0
_MOST_REPORTED = 1000

Refused: TypeAlias = tuple[OutboxMessage, Exception]


def relay_rows(using: str, *, looks_at_streams: bool = True) -> int | None:
    """Publish the rows of the database that may be sent, in this thread. Return how many were
    stored, or None if another relay holds the lease. Raises like Relay.relay_batch()."""
    relay = Relay(using, looks_at_streams=looks_at_streams)
    try:
        while found := relay.relay_batch():
            pass
    finally:
        relay.end()
    return None if found is None else relay.published


class Relay:
    """Relays the rows of the database `using`, while it holds the lease. Use it in one thread.

    A row that was refused has a time for its next try. All others of its key wait for it.

    With `looks_at_streams`, it warns of streams that forget message ids early."""

    def __init__(self, using: str, *, looks_at_streams: bool = True) -> None:
        self.using = using
        self.published = 0
        self._lease = Lease(using)
        self._cursor = 0
        self._began = float("-inf")
        self._retry_at = float("-inf")
        self._reported: dict[tuple[str, str], float] = {}
        self._streams: set[str] = set()
        self._windows = Windows() if looks_at_streams else None

    def relay_batch(self) -> int | None:
        """Publish up to BATCH rows and delete those that a stream has stored. Returns how many
        were found, or None if another relay holds the lease. Raises what the database raises, and
        an Unreachable if it is unknown whether messages were stored."""
        if not self._lease.hold():
            return None
        if refused := self._read_refused():
            self._retry(refused)
            return len(refused)
        rows = self._read()
        if not rows and self._cursor:
            self._began = float("-inf")
            rows = self._read()
        if rows:
            self._relay(rows)
            self._cursor = rows[-1].pk
        return len(rows)

    def end(self) -> None:
        """Give the lease back."""
        self._lease.give_back()

    def _messages(self) -> "QuerySet[OutboxMessage]":
        return OutboxMessage.objects.using(self.using)

    def _read(self) -> list[OutboxMessage]:
        """The next rows that were never refused, and whose keys do not wait."""
        if monotonic() - self._began >= _FROM_THE_START_SECONDS:
            self._began, self._cursor = monotonic(), 0
        waiting = self._messages().filter(next_attempt_at__isnull=False)
        rows = self._messages().filter(pk__gt=self._cursor, attempts=0)
        rows = rows.exclude(key__in=waiting.order_by().values("key"))
        return list(rows.order_by("pk")[:BATCH])

    def _read_refused(self) -> list[OutboxMessage]:
        """The first refused row of each key, where it may be tried again."""
        if monotonic() < self._retry_at:
            return []
        self._retry_at = monotonic() + _RETRY_SECONDS
        refused = self._messages().filter(next_attempt_at__isnull=False).order_by()
        firsts = refused.values("key").annotate(first=Min("pk")).values("first")
        rows = self._messages().filter(pk__in=firsts, next_attempt_at__lte=Now())
        return list(rows.order_by("pk")[:BATCH])

    def _retry(self, rows: Sequence[OutboxMessage]) -> None:
        began, published = monotonic(), self.published
        self._relay(rows)
        if self.published > published:
            self._retry_at = float("-inf")
        else:
            took = monotonic() - began
            self._retry_at = monotonic() + max(_RETRY_SECONDS, took / _RETRY_SHARE - took)

    def _relay(self, rows: Sequence[OutboxMessage]) -> None:
        stored, refused, unknown = self._publish(rows)
        self._delete(stored)
        self._put_off(refused)
        if unknown is not None:
            self._began = float("-inf")
            raise unknown
        if self._windows is not None:
            self._windows.look_at(self._streams)

    def _publish(
        self, rows: Sequence[OutboxMessage]
    ) -> tuple[list[OutboxMessage], list[Refused], Exception | None]:
        """Publish the rows. Return those that were stored, the first of each key that was refused
        with the reason, and one error of the rest, of which neither is known."""
        rows, drafts, refused = _packed(rows)
        if not rows:
            return [], refused, None
        publisher = current_publisher(in_order=True)
        confirmed, failed = publisher.publish_many(drafts, CONFIRM_SECONDS)
        self._streams = {ack.stream for ack in confirmed}
        unknown = None
        keys: set[str] = set()
        for each, error in failed:
            row = rows[each]
            is_refusal = _is_refusal(error)
            if not is_refusal and unknown is None:
                unknown = error
            # Put off, it would come after those of its key that are sent again at once.
            if is_refusal and row.key not in keys:
                refused.append((row, error))
            keys.add(row.key)
        errors = dict(failed)
        return [row for each, row in enumerate(rows) if each not in errors], refused, unknown

    def _delete(self, rows: Sequence[OutboxMessage]) -> None:
        if not rows:
            return
        stored = self._messages().filter(pk__in=[row.pk for row in rows])
        # One statement that commits itself. A relay that is frozen within a transaction of delete()
        # would hold the rows, and its heir would wait for them.
        self.published += stored._raw_delete(self.using)
        again = [row for row in rows if row.attempts]
        if again:
            for row in again:
                self._reported.pop(_cause(row), None)
            logger.info("Outbox: %d messages that were refused before are stored now.", len(again))

    def _put_off(self, refused: Sequence[Refused]) -> None:
        by_attempts: dict[int, list[OutboxMessage]] = {}
        for row, error in refused:
            row.error = str(error)
            by_attempts.setdefault(row.attempts, []).append(row)
        for attempts, rows in by_attempts.items():
            pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(attempts, 10), _LONGEST_PAUSE_SECONDS)
            for start in range(0, len(rows), _ROWS_A_STATEMENT):
                self._postpone(rows[start : start + _ROWS_A_STATEMENT], pause)
        self._report([row for row, _ in refused])

    def _postpone(self, rows: Sequence[OutboxMessage], seconds: float) -> None:
        # Statements that commit themselves, unlike those of bulk_update().
        texts = (When(pk=row.pk, then=Value(row.error)) for row in rows)
        self._messages().filter(pk__in=[row.pk for row in rows]).update(
            attempts=F("attempts") + 1,
            next_attempt_at=Now() + timedelta(seconds=seconds),
            error=Case(*texts, output_field=TextField()),
        )

    def _report(self, refused: Sequence[OutboxMessage]) -> None:
        """Log one of the rows if there is news among their causes."""
        now = monotonic()
        recent = {cause: at for cause, at in self._reported.items() if now - at < _REPORT_SECONDS}
        news = [row for row in refused if _cause(row) not in recent]
        self._reported = recent | {_cause(row): now for row in islice(news, _MOST_REPORTED)}
        if news:
            row = news[0]
            logger.error(
                "Outbox: %d messages were refused, such as %d for %s: %s All messages with their "
                "keys wait, and they are tried again. `manage.py nats_outbox list --stuck` shows "
                "them.",
                len(refused),
                row.pk,
                visible(row.subject),
                visible(row.error),
            )


def _packed(
    rows: Sequence[OutboxMessage],
) -> "tuple[Sequence[OutboxMessage], Drafts, list[Refused]]":
    """The rows that can be sent, their drafts, and the first row of each key that cannot be sent
    with the reason. The rows behind that one are in neither."""
    try:
        return rows, pack(map(_draft, rows)), []
    # Whatever it is: one row must not hold up the others.
    except Exception:
        refused: dict[str, Refused] = {}
        sendable = []
        for row in rows:
            if row.key in refused:
                continue
            try:
                pack([_draft(row)])
            except Exception as error:
                refused[row.key] = row, error
            else:
                sendable.append(row)
        return sendable, pack(map(_draft, sendable)), list(refused.values())


def _draft(row: OutboxMessage) -> Draft:
    headers = json.loads(row.headers) if row.headers else {}
    # psycopg gives a memoryview.
    return row.subject, bytes(row.payload), {**headers, MSG_ID: row.msg_id}


def _cause(row: OutboxMessage) -> tuple[str, str]:
    """The part of an error that all rows have in common where a stream is full or missing."""
    return row.subject.partition(".")[0], row.error.replace(row.subject, "")


def _is_refusal(error: Exception) -> bool:
    """Whether the server has read the message, and the cause of the error is the message's own."""
    return isinstance(error, PublishError | Denied)
