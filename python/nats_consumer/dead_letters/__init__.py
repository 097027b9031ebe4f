"""Stored dead letters: select, replay and delete them. The calls block; use them from `def` code,
such as a command or a view."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats_consumer.connect.args import connect_options
from nats_consumer.connect.resolve import resolve
from nats_consumer.declare import registry
from nats_consumer.declare.durable import durable_of
from nats_consumer.exceptions import ConfigurationError, ConsumerNotFound
from nats_consumer.settings import DEFAULT_CONNECTION

if TYPE_CHECKING:
    from nats_consumer._native import DeadLetters

__all__ = [
    "Selection",
    "dead_letters",
    "durable_called",
    "streams_of_project",
    "unknown_consumer",
]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A selection of dead letters: those that match every given field. `consumer` is the durable
    that gave up on the message, `reason` a text that the reason contains; ages are seconds since
    the dead letter was stored."""

    consumer: str | None = None
    reason: str | None = None
    older_than: float | None = None
    newer_than: float | None = None


@contextmanager
def dead_letters(
    using: str = DEFAULT_CONNECTION, *, connect_timeout: float | None = None
) -> "Iterator[DeadLetters]":
    """A connection to the dead letters of the server of the connection `using`, closed at the end.
    `connect_timeout`, in seconds for each server, replaces the connection's own. Raises
    ConfigurationError, Unreachable or Denied.

        with dead_letters() as letters:
            for letter in letters.select("orders", Selection(reason="worker lost")):
                letters.replay(letter)

    `select(stream, selection)` gives those that are there now, oldest first, or with
    `newest_first=True` the other way round; `get(stream, number)`
    one of them, or None. `replay(letter)` publishes the message again and, when a stream has
    stored it, deletes the dead letter; it returns that stream and the message's sequence there. It
    raises NotReplayable, PublishError or StreamError, and then the dead letter stays.
    `delete(letter)` deletes it."""
    # On first use: importing this, as the command line does, stays light.
    from nats_consumer import _native

    hurry = {} if connect_timeout is None else {"connect_timeout": connect_timeout}
    letters = _native.DeadLetters(resolve(connect_options(hurry, using)))
    try:
        yield letters
    finally:
        letters.close()


def streams_of_project(using: str = DEFAULT_CONNECTION) -> list[str]:
    """The streams that the project's consumers read over the connection `using`."""
    consumers = [each for each in registry.consumers() if each.connection == using]
    return sorted({str(consumer.stream_name) for consumer in consumers})


def unknown_consumer(name: str) -> str | None:
    """A warning if `name` is neither a consumer class of the project nor a durable of one."""
    if not name:
        return None
    try:
        registry.consumer_named(name)
    except ConsumerNotFound as error:
        is_durable = name in {durable_called(each.__name__) for each in registry.consumers()}
        return None if is_durable else f"{error} Treating it as a durable name."
    except ConfigurationError:
        return None  # two classes have it, so it exists
    return None


def durable_called(name: str) -> str:
    """The durable of the consumer class called `name`; `name` itself if there is no such class."""
    try:
        return durable_of(registry.consumer_named(name))[0]
    except (ConsumerNotFound, ConfigurationError, ValueError):
        return name
