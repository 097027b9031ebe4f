"""The store of publish_on_commit() until the commit: a hook of Django's, or the rows of an
outbox, if that app is installed."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from nats_consumer.exceptions import ConfigurationError
from nats_consumer.settings import DEFAULT_CONNECTION, check_connection

from .drafts import Draft, MsgId
from .publisher import captures_rows, current_publisher, note_held

# Takes drafts with their keys, and the alias of the database.
Store: TypeAlias = Callable[[Sequence[tuple[Draft, MsgId | None]], str | None], None]
# Publishes the rows of a database in this thread.
Relay: TypeAlias = Callable[[str], None]

_OURS = "_nats_publishes"
_store: Store | None = None
_relay: Relay | None = None


def store_with(store: Store, relay: Relay) -> None:
    """Keep messages for a commit in `store` from now on; `relay` publishes them."""
    global _store, _relay
    _store, _relay = store, relay


def outbox(wanted: bool | None, connection: str) -> Store | None:
    """Return the store of the messages, or None for a hook. Raises ConfigurationError if an outbox
    is wanted and its app is not installed, and for a connection that it does not publish to."""
    if connection != DEFAULT_CONNECTION:
        check_connection(connection)
    if wanted and _store is None:
        raise ConfigurationError(
            "publish_on_commit(outbox=True) needs the outbox. Add "
            "'nats_consumer.contrib.outbox' to INSTALLED_APPS and run `manage.py migrate`."
        )
    if wanted is False or _store is None:
        return None
    # A test that captures what is published captures it at the commit, with the app or without.
    if captures_rows():
        return None
    if connection != DEFAULT_CONNECTION:
        raise ConfigurationError(
            f"The outbox publishes to the connection {DEFAULT_CONNECTION} only, not to "
            f"{connection}. Call publish_on_commit(outbox=False, connection={connection!r}), which "
            "loses the message if the process dies between the commit and the publishing."
        )
    return _store


def publish_at_commit(
    draft: Draft, limit: float, using: str | None, robust: bool, connection: str
) -> None:
    """publish() from a hook of the transaction, at once if there is none."""
    note_held(using or DEFAULT_DB_ALIAS)
    is_called = False

    def publish_once() -> None:
        # A test's transaction never commits, and more than one helper of it may call the hook.
        nonlocal is_called
        if not is_called:
            is_called = True
            current_publisher(connection).publish(draft, limit)

    setattr(publish_once, _OURS, True)
    transaction.on_commit(publish_once, using=using, robust=robust)


def publish_held(database: str) -> None:
    """Publish what waits in this database as if the transactions around it had committed. For a
    test, whose transaction does not."""
    connection: Any = connections[database]
    for _, hook, *_ in list(connection.run_on_commit):
        if hasattr(hook, _OURS):
            hook()
    if _store is not None and _relay is not None:
        _relay(database)
