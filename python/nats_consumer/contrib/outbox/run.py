"""Relays that run beside something else, each in a thread."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

from django.db import Error, connections

from nats_consumer.client import get_nats_client
from nats_consumer.exceptions import NatsConsumerError
from nats_consumer.lanes.database import aliases_of, close_connections, is_read_only

from .metrics import Metrics
from .models import OutboxMessage
from .relay import Relay
from .write import nudge_subject

logger = logging.getLogger("nats_consumer.publish")

# How long a row may wait if its nudge is lost.
_LOOK_EVERY_SECONDS = 1.0
_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_READ_ONLY_PAUSE_SECONDS = 60.0
# How long a relay may take to end: longer than a batch waits for its confirmations, shorter than
# the 10 s after which `docker stop` kills.
_STOP_SECONDS = 7.0


def databases() -> list[str]:
    """The aliases of the databases that have the outbox's table, or cannot be asked now."""
    return [each for each in aliases_of(OutboxMessage) if _has_table(each)]


@contextmanager
def relays(aliases: list[str] | None = None) -> Iterator[None]:
    """In the body, a thread relays the rows of each database, by default of all databases(). At the
    end it finishes its batch, for which it has a few seconds."""
    if aliases is None:
        aliases = databases()
        close_connections()  # this thread has no further use for them
    running = [RelayThread(alias) for alias in aliases]
    for each in running:
        each.start()
    try:
        yield
    finally:
        for each in running:
            each.stop()
        deadline = monotonic() + _STOP_SECONDS
        for each in running:
            each.join(deadline)


class RelayThread:
    """A thread that relays until it is stopped."""

    def __init__(self, using: str) -> None:
        self._relay = Relay(using)
        self._metrics = Metrics(using)
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._is_read_only = False
        self._nudges = _Nudges(nudge_subject(using), self._due)
        self._thread = threading.Thread(
            target=self._run, name=f"nats_consumer-outbox-{using}", daemon=True
        )

    def start(self) -> None:
        """Begin to relay."""
        self._nudges.start()
        self._thread.start()

    def stop(self) -> None:
        """Have it finish its batch, give the lease back and end."""
        self._stopping.set()
        self._due.set()
        self._nudges.stop()

    def join(self, deadline: float) -> None:
        """Wait for its end, until this time of the monotonic clock. A database that is locked, or
        gone without a word, may take longer."""
        for thread in (self._thread, self._nudges.thread):
            thread.join(max(deadline - monotonic(), 0.0))
        if self._thread.is_alive():
            logger.warning(
                "Outbox: the relay of the database %r did not end within %g s and is "
                "abandoned. Its lease expires, and rows that it was publishing are published again "
                "with the same ids.",
                self._relay.using,
                _STOP_SECONDS,
            )

    def _run(self) -> None:
        try:
            self._relay_until_stopped()
        finally:
            self._give_back()
            close_connections()

    def _relay_until_stopped(self) -> None:
        pause = _SHORTEST_PAUSE_SECONDS
        while not self._stopping.is_set():
            self._due.clear()
            try:
                found = self._relay.relay_batch()
                self._metrics.update(self._relay.published, holds=found is not None)
            # Whatever it is: a relay that has ended would leave all rows where they are.
            except Exception as error:
                if is_read_only(error):
                    self._wait_until_writable()
                    continue
                self._log_failure(error, pause)
                # Another process may reach what this one does not.
                self._give_back()
                close_connections()
                self._stopping.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                continue
            pause, self._is_read_only = _SHORTEST_PAUSE_SECONDS, False
            if found is None:
                # Each nudge reaches all relays, and only one of them has something to do.
                self._stopping.wait(_LOOK_EVERY_SECONDS)
            elif not found:
                self._due.wait(_LOOK_EVERY_SECONDS)

    def _log_failure(self, error: Exception, pause: float) -> None:
        logger.warning(
            "Outbox: the rows of the database %r could not be published: %s Trying again in %g s.",
            self._relay.using,
            error,
            pause,
            exc_info=not isinstance(error, Error | NatsConsumerError),
        )

    def _wait_until_writable(self) -> None:
        using = self._relay.using
        if not self._is_read_only:
            self._is_read_only = True
            logger.warning(
                "Outbox: the database %r accepts no writes, so its rows are not relayed. If it is "
                'a replica, set DATABASES[%r]["TEST"] = {"MIRROR": ...} to the alias of its '
                "primary. Trying again every %g s.",
                using,
                using,
                _READ_ONLY_PAUSE_SECONDS,
            )
        close_connections()
        self._stopping.wait(_READ_ONLY_PAUSE_SECONDS)

    def _give_back(self) -> None:
        try:
            self._relay.end()
            self._metrics.update(self._relay.published, holds=False)
        except Error as error:
            logger.info("Outbox: the lease was not released and will expire: %s", error)


class _Nudges:
    """Sets `due` whenever a process has committed rows."""

    def __init__(self, subject: str, due: threading.Event) -> None:
        self._subject = subject
        self._due = due
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self.thread = threading.Thread(
            target=self._run, name="nats_consumer-outbox-nudges", daemon=True
        )

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._listen_once()
            # Whatever it is: rows are found without nudges too.
            except Exception as error:
                logger.info(
                    "Outbox: no nudges can be received, so rows wait up to %g s: %s",
                    _LOOK_EVERY_SECONDS,
                    error,
                )
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _LONGEST_PAUSE_SECONDS)

    async def _listen_once(self) -> None:
        async def wake(_: object) -> None:
            self._due.set()

        async with await get_nats_client() as client:
            await client.subscribe(self._subject, cb=wake)
            await self._stopping.wait()


def _has_table(alias: str) -> bool:
    try:
        return OutboxMessage._meta.db_table in connections[alias].introspection.table_names()
    except Error as error:
        logger.warning("Outbox: the tables of the database %r cannot be read: %s", alias, error)
        return True
