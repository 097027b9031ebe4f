"""Where publish_on_commit() keeps messages for the commit: a hook of Django's, or the rows of an
outbox, if that app is installed."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from django.db import transaction

from nats_consumer.exceptions import ConfigurationError

from .drafts import Draft
from .publisher import current_publisher, is_replaced

# Takes drafts with their keys, and the alias of the database.
Store: TypeAlias = Callable[[Sequence[tuple[Draft, str | None]], str | None], None]

_store: Store | None = None


def store_with(store: Store) -> None:
    """From now on, messages for a commit are kept by `store`."""
    global _store
    _store = store


def outbox(wanted: bool | None) -> Store | None:
    """What keeps the messages, or None for a hook. Raises ConfigurationError if an outbox is
    wanted and its app is not installed."""
    if wanted and _store is None:
        raise ConfigurationError(
            "publish_on_commit(outbox=True) needs the outbox. Add "
            "'nats_consumer.contrib.outbox' to INSTALLED_APPS and run `manage.py migrate`."
        )
    if wanted is False or _store is None:
        return None
    # A test that captures what is published captures it at the commit, with the app or without.
    return None if is_replaced() else _store


def publish_at_commit(draft: Draft, limit: float, using: str | None, robust: bool) -> None:
    """publish() from a hook of the transaction, at once if there is none."""
    transaction.on_commit(
        lambda: current_publisher().publish(draft, limit), using=using, robust=robust
    )
