"""Idempotent consumers."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from django.db import Error, connections

from nats_consumer.declare.declaration import Declaration
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.lanes.database import aliases_of, close_connections

from .models import InboxMessage
from .transaction import handle, handle_batch, inbox_database

logger = logging.getLogger("nats_consumer.worker")


def handle_once(consumer: Declaration, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The handler in a transaction that skips a message which was handled before."""
    using = _database(consumer)

    def handle_message(message: Any) -> Any:
        identity = consumer.message_identity(message)
        return handle(message, handler, identity=identity, using=using)

    return handle_message


def handle_batch_once(
    consumer: Declaration, handler: Callable[[Sequence[Any]], Any]
) -> Callable[[Sequence[Any]], Any]:
    """The handler of batches in a transaction that leaves out what was handled before."""
    using = _database(consumer)

    def handle_items(items: Sequence[Any]) -> Any:
        messages = [(item.message, consumer.message_identity(item.message)) for item in items]
        return handle_batch(
            messages,
            lambda new: handler([item for item in items if item.message in new]),
            using=using,
        )

    return handle_items


def handle_method_once(
    message: Any, method: Callable[[Any], Any], name: str, using: str | bool
) -> Any:
    """Call the method in such a transaction, which remembers the message for it alone."""
    alias = using if isinstance(using, str) else inbox_database()
    return handle(message, method, identity=message.identity, using=alias, part=name)


def check_table(consumer: Declaration) -> None:
    """Raises ConfigurationError if the consumer's database has no table, or cannot keep one. A
    database that does not answer is left to the messages: their attempts fail until it does."""
    using = _database(consumer)
    try:
        problem = _problem(using)
    except Error as error:
        logger.warning(
            "%s: the tables of the database %r cannot be read: %s",
            consumer.consumer_name,
            using,
            error,
        )
        return
    finally:
        close_connections()  # this thread has no further use for them
    if problem:
        raise ConfigurationError(f"{consumer.consumer_name} is idempotent, but {problem}")


def databases() -> list[str]:
    """The aliases of the databases that have the inbox's table. Raises what the database raises."""
    return [each for each in aliases_of(InboxMessage) if has_table(each)]


def _database(consumer: Declaration) -> str:
    return inbox_database() if consumer.idempotent is True else str(consumer.idempotent)


def _problem(using: str) -> str | None:
    features = connections[using].features
    if not features.supports_transactions or not features.supports_ignore_conflicts:
        return f"the database {using!r} has no transactions, or no INSERT that skips known rows."
    if not has_table(using):
        return (
            f"the database {using!r} has no table for the inbox. Run `manage.py migrate nats_inbox "
            f"--database {using}`; a database router may have to allow it."
        )
    return None


def has_table(using: str) -> bool:
    """Whether the database has the inbox's table. Raises what the database raises."""
    return InboxMessage._meta.db_table in connections[using].introspection.table_names()
