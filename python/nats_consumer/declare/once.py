"""Handlers whose work commits once for each message: `idempotent`. The inbox, an app of its own,
does it."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from django.db import connections

from nats_consumer.exceptions import ConfigurationError
from nats_consumer.settings import DEFAULT_CONNECTION

from .declaration import Declaration, Declared


class Inbox(Protocol):
    """The part of the app that this package calls."""

    def handle_once(
        self, consumer: Declaration, handler: Callable[[Any], Any]
    ) -> Callable[[Any], Any]:
        """The handler in a transaction that skips a message which was handled before."""

    def handle_batch_once(
        self, consumer: Declaration, handler: Callable[[Sequence[Any]], Any]
    ) -> Callable[[Sequence[Any]], Any]:
        """The handler of batches in a transaction that leaves out what was handled before."""

    def handle_method_once(
        self, message: Any, method: Callable[[Any], Any], name: str, using: str | bool
    ) -> Any:
        """Call the method in such a transaction, which remembers the message for it alone."""

    def check_table(self, consumer: Declaration) -> None:
        """Raises ConfigurationError if the database has no table for it. Asks the database."""


_MARK = "_nats_idempotent"
_inbox: Inbox | None = None


def handle_with(inbox: Inbox) -> None:
    """Handle the messages of idempotent consumers with `inbox` from now on."""
    global _inbox
    _inbox = inbox


def check(consumer: Declared, *, is_async: bool) -> None:
    """Raises ConfigurationError if the consumer cannot be idempotent although it says so."""
    value = consumer.idempotent
    if not isinstance(value, bool | str):
        raise ConfigurationError(
            f"idempotent must be True, False or the alias of a database, not {value!r}."
        )
    if value is False:
        return
    if is_async:
        raise ConfigurationError(
            "idempotent needs a plain `def handle_message` or `def handle_batch`, because Django "
            "has no asynchronous transactions."
        )
    if isinstance(value, str) and value not in connections:
        raise ConfigurationError(f"idempotent names the database {value!r}, which does not exist.")
    _refuse_other_systems(consumer)
    _installed()


def check_methods(consumer: Declaration, handler: object) -> None:
    """Raises ConfigurationError if a method of the consumer's handler is idempotent and cannot
    be."""
    methods = [each for cls in type(handler).__mro__ for each in vars(cls).values()]
    if any(map(database_of, methods)):
        _refuse_other_systems(consumer)


def _refuse_other_systems(consumer: Declared) -> None:
    # A row of the inbox does not say which system has its stream.
    if consumer.connection != DEFAULT_CONNECTION:
        raise ConfigurationError(
            f"idempotent needs the connection {DEFAULT_CONNECTION!r}, because the inbox knows the "
            f"messages of one NATS system only, and connection is {consumer.connection!r}."
        )


def check_table(consumer: Declaration) -> None:
    """Raises ConfigurationError if a database lacks the table that the consumer needs. It may ask
    the database, so call it in a thread."""
    if _inbox is not None and consumer.idempotent:
        _inbox.check_table(consumer)


def handled_once(consumer: Declaration, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The handler itself, or as the inbox calls it if the consumer is idempotent."""
    if not consumer.idempotent or _inbox is None:
        return handler
    return _inbox.handle_once(consumer, handler)


def batch_handled_once(
    consumer: Declaration, handler: Callable[[Sequence[Any]], Any]
) -> Callable[[Sequence[Any]], Any]:
    """The handler of batches itself, or as the inbox calls it if the consumer is idempotent."""
    if not consumer.idempotent or _inbox is None:
        return handler
    return _inbox.handle_batch_once(consumer, handler)


def mark(method: Callable[..., Any], using: str | None) -> None:
    """Have a ConsumerHandler call the method once for each message."""
    setattr(method, _MARK, using or True)


def database_of(method: object) -> str | bool:
    """The database of a method that is marked, True if that is the default; False for others."""
    using: str | bool = getattr(method, _MARK, False)
    return using


def method_once(method: Callable[[Any], Any], name: str, using: str | bool) -> Callable[[Any], Any]:
    """The method as the inbox calls it. Where that is not installed, the call raises
    ConfigurationError."""
    return lambda message: _installed().handle_method_once(message, method, name, using)


def _installed() -> Inbox:
    if _inbox is None:
        raise ConfigurationError(
            "idempotent needs the inbox. Add 'nats_consumer.contrib.inbox' to INSTALLED_APPS and "
            "run `manage.py migrate`."
        )
    return _inbox
