"""The relay: publishes the rows of one database in their order, and deletes what is stored."""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from time import monotonic

from django.db.models import F
from django.db.models.functions import Now

from nats_consumer.exceptions import Denied, PublishError, PublishTimeout
from nats_consumer.publish.drafts import Outgoing, make_drafts
from nats_consumer.publish.publisher import current_publisher

from .lease import Lease
from .models import OutboxMessage
from .window import Windows

logger = logging.getLogger("nats_consumer.publish")

BATCH = 500
# How long the streams may take to confirm a batch. With the 3 s that a lease may be old when the
# batch begins, it ends before the lease does.
CONFIRM_SECONDS = 5.0
# How often rows before the cursor are looked for: a transaction may commit a lower id later.
_FROM_THE_START_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_REPORT_SECONDS = 600.0


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

    With `looks_at_streams`, it warns of streams that forget message ids early."""

    def __init__(self, using: str, *, looks_at_streams: bool = True) -> None:
        self.using = using
        self.published = 0
        self._lease = Lease(using)
        self._cursor = 0
        self._began = float("-inf")
        self._held: set[str] = set()
        self._reported: dict[str, float] = {}
        self._streams: set[str] = set()
        self._windows = Windows() if looks_at_streams else None

    def relay_batch(self) -> int | None:
        """Publish up to BATCH rows and delete those that a stream has stored. Returns how many
        were found, or None if another relay holds the lease. Raises what the database raises, and
        a PublishError or Unreachable if it is unknown whether messages were stored."""
        if not self._lease.hold():
            return None
        rows = self._read()
        if not rows and self._cursor:
            self._began = float("-inf")
            rows = self._read()
        if not rows:
            return 0
        stored, refused, unknown = self._publish(rows)
        self._delete(stored)
        for row, error in refused:
            self._put_off(row, error)
        if unknown is not None:
            self._began = float("-inf")
            raise unknown
        self._cursor = rows[-1].pk
        if self._windows is not None:
            self._windows.look_at(self._streams)
        return len(rows)

    def end(self) -> None:
        """Give the lease back."""
        self._lease.give_back()

    def _read(self) -> list[OutboxMessage]:
        """The next rows that may be sent."""
        messages = OutboxMessage.objects.using(self.using)
        if monotonic() - self._began >= _FROM_THE_START_SECONDS:
            self._began, self._cursor = monotonic(), 0
            self._held = set(
                messages.filter(next_attempt_at__gt=Now()).values_list("key", flat=True).distinct()
            )
        rows = messages.filter(pk__gt=self._cursor).order_by("pk")
        if self._held:
            rows = rows.exclude(key__in=self._held)
        return list(self._but_followers_of_refused(rows[:BATCH]))

    def _but_followers_of_refused(self, rows: Iterable[OutboxMessage]) -> Iterator[OutboxMessage]:
        """The rows, but of a key whose first row was refused before only that one: its followers
        would pass it if it is refused again. They come when the rows are read from the start."""
        for row in rows:
            if row.key in self._held:
                continue
            if row.attempts:
                self._held.add(row.key)
            yield row

    def _publish(
        self, rows: Sequence[OutboxMessage]
    ) -> tuple[list[OutboxMessage], list[tuple[OutboxMessage, Exception]], Exception | None]:
        """Publish the rows. Return those that were stored, those that were refused with the reason,
        and one error of the rest, of which neither is known."""
        drafts = make_drafts(_outgoing(row) for row in rows)
        confirmed, failed = current_publisher().publish_many(drafts, CONFIRM_SECONDS)
        self._streams = {ack.stream for ack in confirmed}
        errors = dict(failed)
        refused = [(rows[each], error) for each, error in failed if _is_refusal(error)]
        unknown = next((error for error in errors.values() if not _is_refusal(error)), None)
        stored = [row for each, row in enumerate(rows) if each not in errors]
        return stored, refused, unknown

    def _delete(self, rows: Sequence[OutboxMessage]) -> None:
        if not rows:
            return
        stored = OutboxMessage.objects.using(self.using).filter(pk__in=[row.pk for row in rows])
        # One statement that commits itself. A relay that is frozen within a transaction of delete()
        # would hold the rows, and its heir would wait for them.
        self.published += stored._raw_delete(self.using)
        for row in rows:
            if row.attempts:
                self._reported.pop(row.key, None)
                logger.info("Outbox: message %d for %s is stored now.", row.pk, row.subject)

    def _put_off(self, row: OutboxMessage, error: Exception) -> None:
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(row.attempts, 10), _LONGEST_PAUSE_SECONDS)
        self._held.add(row.key)
        OutboxMessage.objects.using(self.using).filter(pk=row.pk).update(
            attempts=F("attempts") + 1,
            next_attempt_at=Now() + timedelta(seconds=pause),
            error=str(error),
        )
        if monotonic() - self._reported.get(row.key, float("-inf")) >= _REPORT_SECONDS:
            self._reported[row.key] = monotonic()
            logger.error(
                "Outbox: message %d for %s was refused: %s All messages with the key %r wait, and "
                "it is tried again. `manage.py nats_outbox list --stuck` shows it.",
                row.pk,
                row.subject,
                error,
                row.key,
            )


def _outgoing(row: OutboxMessage) -> Outgoing:
    headers = json.loads(row.headers) if row.headers else None
    # psycopg gives a memoryview.
    return Outgoing(row.subject, bytes(row.payload), headers, row.msg_id)


def _is_refusal(error: Exception) -> bool:
    """Whether it is known that the message was not stored, and that others may well be."""
    return isinstance(error, PublishError | Denied) and not isinstance(error, PublishTimeout)
