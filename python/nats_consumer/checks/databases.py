"""Warnings about a database: what suits requests may not suit the threads of a worker."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning

from nats_consumer.lanes.database import begins_as_reader

# What psycopg_pool has without a max_size or min_size.
_DEFAULT_POOL_SIZE = 4
# The default ports of pgbouncer, and of a well-known host for its transaction mode.
_POOLER_PORTS = ("6432", "6543")


def database_problems(
    alias: str, database: Mapping[str, Any], threads: Mapping[str, int]
) -> Iterator[CheckMessage]:
    """Yield the warnings about a database, with the number of threads of each consumer that has
    some."""
    several = [name for name, count in threads.items() if count > 1]
    if several and begins_as_reader(database):
        yield CheckWarning(
            f"The SQLite database {alias!r} will often be locked: the threads of "
            f"{', '.join(several)} write to it at the same time, and its transactions begin as "
            "readers.",
            hint='Give it "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20}, or the '
            "consumers concurrency = 1.",
            id="nats_consumer.W004",
        )
    size = _pool_size(database)
    wider = [name for name, count in threads.items() if size is not None and count > size]
    if wider:
        yield CheckWarning(
            f"The pool of the database {alias!r} has {size} connections, fewer than the threads of "
            f"{', '.join(wider)}: handlers wait for a connection, and fail after 30 s.",
            hint=f'Give the pool a "max_size" of at least {max(threads.values())}, or remove it: '
            "the worker keeps a connection for each thread while messages come, whatever "
            "CONN_MAX_AGE says.",
            id="nats_consumer.W020",
        )
    if _has_pooler(database) and not database.get("DISABLE_SERVER_SIDE_CURSORS"):
        yield CheckWarning(
            f"The port of the database {alias!r} is that of a pooler such as pgbouncer. In "
            "transaction mode, iterator() of a QuerySet fails outside a transaction there, because "
            "the next query gets another connection.",
            hint='Set "DISABLE_SERVER_SIDE_CURSORS": True, or silence this if the pooler is in '
            "session mode.",
            id="nats_consumer.W021",
        )


def _pool_size(database: Mapping[str, Any]) -> int | None:
    """The most connections of Django's pool; None without one."""
    pool = (database.get("OPTIONS") or {}).get("pool")
    if not pool:
        return None
    given = pool if isinstance(pool, Mapping) else {}
    size: int = given.get("max_size") or given.get("min_size") or _DEFAULT_POOL_SIZE
    return size


def _has_pooler(database: Mapping[str, Any]) -> bool:
    is_postgresql = str(database.get("ENGINE")).endswith((".postgresql", ".postgis"))
    return is_postgresql and str(database.get("PORT")) in _POOLER_PORTS
