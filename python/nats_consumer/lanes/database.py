"""Django's database connections, treated around a message as around a request."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections, reset_queries
from django.db.backends.base.base import BaseDatabaseWrapper

from .pool import BatchTask, PoolTask

logger = logging.getLogger("nats_consumer.worker")

# Below the first retry's default delay: a connection that broke under one attempt is replaced
# before the next one.
_SECONDS_BETWEEN_CHECKS = 0.5


# CONN_MAX_AGE = 0 is made for requests. A thread under load holds such a connection this long.
_LONGEST_HELD_SECONDS = 60.0


@contextmanager
def fresh_connections() -> Iterator[None]:
    """Connections that are too old or broken are closed before and after the body; a thread under
    load holds those of CONN_MAX_AGE = 0 until it is idle and calls close_old_connections(). The
    queries that Django keeps with DEBUG are forgotten before it."""
    reset_queries()
    _close_old_connections()
    try:
        yield
    finally:
        _close_old_connections()


def close_connections() -> None:
    """Close this thread's connections; for the end of a thread."""
    connections.close_all()


def _close_old_connections() -> None:
    for connection in connections.all(initialized_only=True):
        if _is_held(connection):
            _check_when_used(connection)
        else:
            connection.close_if_unusable_or_obsolete()


def _is_held(connection: BaseDatabaseWrapper) -> bool:
    """Whether Django would connect again for each message. A pool makes that cheap, and has too few
    connections for each thread to hold one."""
    settings = connection.settings_dict
    opened = connection.close_at
    return (
        settings["CONN_MAX_AGE"] == 0
        and "pool" not in settings["OPTIONS"]
        and opened is not None
        and time.monotonic() < opened + _LONGEST_HELD_SECONDS
    )


def _check_when_used(connection: BaseDatabaseWrapper) -> None:
    """Close a broken connection, and have Django check another one before its next query: a
    connection of CONN_MAX_AGE = 0 is not expected to fail because the database was restarted."""
    opened, connection.close_at = connection.close_at, None
    connection.health_check_enabled = True  # type: ignore[attr-defined] # not in django-stubs
    connection.close_if_unusable_or_obsolete()
    connection.close_at = opened


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
    return any(isinstance(task, PoolTask | BatchTask) and task.has_handler() for task in tasks)


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
