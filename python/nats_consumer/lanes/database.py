"""Django's database connections, treated around a message as around a request."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections, reset_queries

from .pool import PoolTask

logger = logging.getLogger("nats_consumer.worker")

# Below the first retry's default delay: a connection that broke under one attempt is replaced
# before the next one.
_SECONDS_BETWEEN_CHECKS = 0.5


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Connections that are too old or broken are closed before and after the body. The queries that
    Django keeps with DEBUG are forgotten before it."""
    reset_queries()
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def close_connections() -> None:
    """Close this thread's connections; for the end of a thread."""
    connections.close_all()


async def idle() -> None:
    """Wait until the shared thread in which async handlers use the database has nothing to do."""
    await sync_to_async(close_connections)()


async def keep_connections_fresh() -> None:
    """The same for async handlers, whose database work Django sends to one shared thread: there,
    twice a second. Connections that are too old are closed when no handler runs that may use them;
    broken ones in any case. Ends only by being cancelled."""
    while True:
        await asyncio.sleep(_SECONDS_BETWEEN_CHECKS)
        try:
            # A handler that begins meanwhile comes after this one in the thread.
            await sync_to_async(_replace_broken if _handlers_run() else _refresh)()
        except Exception:
            logger.exception("The database connections could not be checked.")


def _handlers_run() -> bool:
    tasks = asyncio.all_tasks()
    return any(isinstance(task, PoolTask) and task.has_handler() for task in tasks)


def _refresh() -> None:
    reset_queries()
    close_old_connections()


def _replace_broken() -> None:
    reset_queries()
    for connection in connections.all(initialized_only=True):
        if not connection.errors_occurred or connection.in_atomic_block:
            continue
        if connection.is_usable():
            connection.errors_occurred = False
        else:
            connection.close()
