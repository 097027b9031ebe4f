"""Deletes rows of messages that cannot come again."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import uniform

from django.db import Error
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from nats_consumer import settings
from nats_consumer.client import get_nats_client
from nats_consumer.exceptions import NatsConsumerError
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.lanes.database import aliases_of, close_connections, is_read_only

from .consumer import has_table
from .models import InboxMessage

logger = logging.getLogger("nats_consumer.worker")

_EVERY_SECONDS = 3600.0
# Workers that start together do not clean together.
_FIRST_SECONDS = (60.0, 300.0)
_ROWS_A_STATEMENT = 500
# How far the clocks of the server and of the database may differ.
_CLOCKS = timedelta(hours=1)
_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class _Durable:
    """The position of a durable, and when its stream was created."""

    ack_floor: int
    stream_created: datetime | None


def clean(using: str, stopping: threading.Event | None = None) -> int:
    """Delete the rows of the database `using` that are older than the setting inbox_retention and
    whose messages are settled, as the server says. Returns how many. Rows of a durable that the
    server does not know, or cannot be asked for, stay. Raises Unreachable and what the database
    raises."""
    expired = InboxMessage.objects.using(using).filter(
        handled_at__lt=Now() - timedelta(seconds=settings.inbox_retention())
    )
    pairs = list(expired.order_by().values_list("stream", "consumer").distinct())
    found = wait_for(_positions(pairs)) if pairs else {}
    count = 0
    for (stream, consumer), durable in found.items():
        rows = expired.filter(_is_settled(durable), stream=stream, consumer=consumer)
        while (deleted := _delete_some(rows, using)) and not (stopping and stopping.is_set()):
            count += deleted
    return count


@contextmanager
def cleaning() -> Iterator[None]:
    """In the body, a thread cleans each database once an hour."""
    stopping = threading.Event()
    thread = threading.Thread(
        target=_clean_until, args=(stopping,), name="nats_consumer-inbox", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(_STOP_SECONDS)


def _clean_until(stopping: threading.Event) -> None:
    pause = uniform(*_FIRST_SECONDS)  # noqa: S311 - no secret
    while not stopping.wait(pause):
        pause = _EVERY_SECONDS
        for using in aliases_of(InboxMessage):
            _clean_or_warn(using, stopping, pause)
        close_connections()


def _clean_or_warn(using: str, stopping: threading.Event, pause: float) -> None:
    try:
        if has_table(using):
            clean(using, stopping)
    # Whatever it is: a thread that has ended would let the table grow.
    except Exception as error:
        if is_read_only(error):
            return
        logger.warning(
            "Inbox: the rows of the database %r could not be cleaned: %s Trying again in %g s.",
            using,
            error,
            pause,
            exc_info=not isinstance(error, Error | NatsConsumerError),
        )


def _is_settled(durable: _Durable) -> Q:
    settled = Q(sequence__lte=durable.ack_floor)
    if durable.stream_created is not None:
        # Of a stream that was deleted: the one that has its name now counts from 1 again.
        settled |= Q(handled_at__lt=durable.stream_created - _CLOCKS)
    return settled


def _delete_some(rows: "QuerySet[InboxMessage]", using: str) -> int:
    ids = list(rows.order_by("pk").values_list("pk", flat=True)[:_ROWS_A_STATEMENT])
    InboxMessage.objects.using(using).filter(pk__in=ids).delete()
    return len(ids)


async def _positions(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], _Durable]:
    found: dict[tuple[str, str], _Durable] = {}
    async with await get_nats_client() as client:
        js = client.jetstream()
        for stream, consumer in pairs:
            try:
                info = await js.consumer_info(stream, consumer)
                created = (await js.stream_info(stream)).created
            except NatsConsumerError as error:
                logger.info(
                    "Inbox: rows of the durable %s of the stream %s stay, because its position is "
                    "unknown: %s",
                    consumer,
                    stream,
                    error,
                )
                continue
            found[stream, consumer] = _Durable(info.ack_floor.stream_seq or 0, created)
    return found
