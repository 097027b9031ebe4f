"""Streams that forget message ids early: what a relay publishes again would be stored twice."""

import logging
from collections.abc import Iterable

from nats_consumer.client import get_nats_client
from nats_consumer.exceptions import NatsConsumerError
from nats_consumer.lanes.blocking import wait_for

logger = logging.getLogger("nats_consumer.publish")

# How long a relay may be frozen, or a database away, between publishing and deleting.
LONG_ENOUGH_SECONDS = 600.0


class Windows:
    """Warns once of each stream with a short duplicate_window."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def look_at(self, streams: Iterable[str]) -> None:
        """Ask for those of the streams that are new. A server that cannot be asked is none of the
        relay's trouble."""
        new = set(streams) - self._known
        if not new:
            return
        self._known |= new
        try:
            wait_for(_warn_of(sorted(new)))
        except NatsConsumerError as error:
            logger.debug("Outbox: the duplicate_window cannot be read: %s", error)


async def _warn_of(streams: list[str]) -> None:
    async with await get_nats_client() as client:
        js = client.jetstream()
        for name in streams:
            seconds = (await js.stream_info(name)).config.duplicate_window or 0.0
            if seconds < LONG_ENOUGH_SECONDS:
                logger.warning(
                    "Outbox: the stream %s remembers message ids for %g s. If a relay is lost, or "
                    "the database is away, for longer, messages are stored twice. Set its "
                    "duplicate_window to %g s or more.",
                    name,
                    seconds,
                    LONG_ENOUGH_SECONDS,
                )
