"""Django's database connections, treated around a message as around a request."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.db import Error, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models import Model

# PostgreSQL's code of a statement that a read-only transaction or a standby refuses, and MySQL's.
_READ_ONLY_STATE = "25006"
_READ_ONLY_NUMBERS = (1290, 1792, 1836)
_SQLITE = ("django.db.backends.sqlite3", "django.contrib.gis.db.backends.spatialite")
# CONN_MAX_AGE = 0 is made for requests. A thread under load holds such a connection this long.
_LONGEST_HELD_SECONDS = 60.0


# Django tells of no connection that breaks while it is set up. Such a one is found this soon, and
# after a handler that failed at once.
_LOOK_SECONDS = 0.1


class _Opened(threading.local):
    """The connections that this thread has opened. `connections.all()` takes as long as a short
    handler."""

    def __init__(self) -> None:
        self.connections: list[BaseDatabaseWrapper] = []
        self.next_look = 0.0

    def look(self) -> None:
        """Find those that Django has not told of."""
        self.next_look = time.monotonic() + _LOOK_SECONDS
        for connection in connections.all(initialized_only=True):
            if connection.connection is not None:
                _note_opened(connection=connection)


_opened = _Opened()


def _note_opened(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    if not any(each is connection for each in _opened.connections):
        _opened.connections.append(connection)


connection_created.connect(_note_opened, dispatch_uid=__name__)


class FreshConnections:
    """A body before and after which connections that are too old or broken are closed; a thread
    under load holds those of CONN_MAX_AGE = 0 until it is idle and calls close_old_connections().
    The queries that Django keeps with DEBUG are forgotten before it."""

    # A generator with @contextmanager takes several times as long, for each message.
    __slots__ = ()

    def __enter__(self) -> None:
        refresh()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None:
            _opened.look()
        _close_old_connections()


def refresh() -> None:
    """FreshConnections without its end, for a thread that calls nothing else after the body."""
    if time.monotonic() >= _opened.next_look:
        _opened.look()
    if _opened.connections:
        _forget_queries()
        _close_old_connections()


def note_failure() -> None:
    """Have the next refresh() find connections that Django has not told of: the code failed."""
    _opened.next_look = 0.0


def _forget_queries() -> None:
    for connection in _opened.connections:
        connection.queries_log.clear()


def close_connections() -> None:
    """Close this thread's connections; for the end of a thread."""
    connections.close_all()


def _close_old_connections() -> None:
    for connection in _opened.connections:
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


def begins_as_reader(database: Mapping[str, Any]) -> bool:
    """Whether it is SQLite as Django sets it up: several threads that write find it locked."""
    mode = (database.get("OPTIONS") or {}).get("transaction_mode") or "DEFERRED"
    return database.get("ENGINE") in _SQLITE and bool(mode.upper() == "DEFERRED")


def has_one_writer() -> bool:
    """Whether a database is such a one."""
    return any(begins_as_reader(each) for each in connections.settings.values())


def are_pooled() -> bool:
    """Whether connections come from a pool of Django's, and have to go back there."""
    return any("pool" in each.get("OPTIONS", {}) for each in connections.settings.values())


def _check_when_used(connection: BaseDatabaseWrapper) -> None:
    """Close a broken connection, and have Django check another one before its next query: a
    connection of CONN_MAX_AGE = 0 is not expected to fail because the database was restarted."""
    opened, connection.close_at = connection.close_at, None
    connection.health_check_enabled = True  # type: ignore[attr-defined] # not in django-stubs
    connection.close_if_unusable_or_obsolete()
    connection.close_at = opened


async def idle() -> None:
    """Wait until the thread that Django has for asynchronous code has nothing to do."""
    await sync_to_async(close_connections)()


def replace_broken() -> None:
    """Close the connections that are broken, and no others: somebody may use them."""
    _forget_queries()
    _opened.look()
    for connection in _opened.connections:
        if not connection.errors_occurred or connection.in_atomic_block:
            continue
        if connection.is_usable():
            connection.errors_occurred = False
        else:
            connection.close()


def aliases_of(model: type[Model]) -> list[str]:
    """The aliases of the databases that may have the model's table, without replicas: they name a
    TEST["MIRROR"]."""
    return [
        each
        for each in connections
        if router.allow_migrate_model(each, model) and not _is_mirror(each)
    ]


def _is_mirror(alias: str) -> bool:
    return bool(connections.settings[alias]["TEST"].get("MIRROR"))


def is_read_only(error: Exception) -> bool:
    """Whether the database refused a statement because it takes no writes, as a replica does."""
    if not isinstance(error, Error):
        return False
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    number = error.args[0] if error.args else None
    is_refused_by_sqlite = "attempt to write a readonly database" in str(error)
    return state == _READ_ONLY_STATE or number in _READ_ONLY_NUMBERS or is_refused_by_sqlite
