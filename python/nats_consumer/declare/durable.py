"""Durables: the server-side position that a consumer shares with its replicas."""

import os
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from uuid import uuid4

from nats_consumer import settings
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.names import check_name

from .declaration import Declaration, Declared, class_of, is_overridden, label

# Characters that make the durable of a process another one than those of other processes.
_SUFFIX = 12


def durable_of(consumer: Declared) -> tuple[str, bool]:
    """The durable's name: that of its get_durable_name() if it overrides that, otherwise what the
    attributes and settings say; and whether it is made from the class's name because nothing says
    it. Raises ConfigurationError or ValueError."""
    if is_overridden(consumer, "get_durable_name") and not isinstance(consumer, type):
        return check_name(consumer.get_durable_name(), "get_durable_name()"), False
    return declared_durable(consumer)


def declared_durable(consumer: Declared) -> tuple[str, bool]:
    """The same by the attributes and settings alone."""
    if consumer.durable_name:
        return check_name(consumer.durable_name, "durable_name"), False
    if consumer.ephemeral is True:
        return f"{class_of(consumer).__name__}-{_of_process(os.getpid())}", False
    if default := default_durable():
        return default, False
    return class_of(consumer).__name__, True


@cache
def _of_process(pid: int) -> str:  # noqa: ARG001 - a forked child has a name of its own
    return uuid4().hex[:_SUFFIX]


def is_sibling(durable: str, other: str) -> bool:
    """Whether both are durables of one ephemeral consumer, in two processes."""
    return len(durable) == len(other) and durable[:-_SUFFIX] == other[:-_SUFFIX]


def default_durable() -> str | None:
    """The durable of the consumers that name none, or None. Raises ConfigurationError if no durable
    can have that name."""
    name = settings.default_durable_name()
    try:
        return check_name(name, 'NATS_CONSUMER["default_durable_name"]') if name else None
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def shared_durables(consumers: Iterable[type[Declaration]]) -> list[str]:
    """Return messages about the classes that would share one durable on one stream."""
    users: dict[tuple[str, str | None, str], list[type[Declaration]]] = defaultdict(list)
    for consumer in consumers:
        try:
            durable = declared_durable(consumer)[0]
        except (ConfigurationError, ValueError):
            continue  # consumer_options() says so
        if not is_overridden(consumer, "get_durable_name"):
            users[str(consumer.connection), consumer.stream_name, durable].append(consumer)
    return [
        _shared_durable(stream, durable, group)
        for (_, stream, durable), group in users.items()
        if len(group) > 1
    ]


def _shared_durable(stream: str | None, durable: str, consumers: list[type[Declaration]]) -> str:
    by_setting = settings.default_durable_name() and not all(c.durable_name for c in consumers)
    cause = ' because of NATS_CONSUMER["default_durable_name"]' if by_setting else ""
    return (
        f"{' and '.join(map(label, consumers))} share the durable {durable!r} on stream "
        f"{stream!r}{cause}, so each would get only a part of the messages. Give each "
        "its own durable_name."
    )
