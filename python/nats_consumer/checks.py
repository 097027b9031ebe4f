"""System checks: what is wrong with the settings and the consumers, before anything runs."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning

from . import event_loop, registry, settings
from .connect import connect_options
from .exceptions import ConfigurationError
from .options import consumer_options, durable_of, message_handler, subjects_left_out

if TYPE_CHECKING:
    from .consumer import NatsConsumer


@register("nats_consumer")
def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: NATS_CONSUMER has a wrong key, type or value."""
    readers: list[Callable[[], object]] = [
        settings.check_keys,
        connect_options,
        settings.shutdown_timeout,
        settings.embedded_store,
        event_loop.check,
    ]
    problems: dict[str, None] = {}
    for read in readers:
        try:
            read()
        except ConfigurationError as error:
            problems[str(error)] = None
    return [Error(problem, id="nats_consumer.E001") for problem in problems]


@register("nats_consumer")
def check_consumers(**_: Any) -> list[CheckMessage]:
    """E002 to E005 and W001: what is wrong with each consumer, and between them."""
    messages: list[CheckMessage] = [*_same_names(), *_same_durables()]
    for consumer in registry.consumers():
        messages.extend(_own_problems(consumer))
    return messages


def _own_problems(consumer: "type[NatsConsumer]") -> Iterator[CheckMessage]:
    place = registry.label(consumer)
    try:
        message_handler(consumer)
    except ConfigurationError as error:
        yield Error(f"{place} cannot run: {error}", obj=consumer, id="nats_consumer.E002")
        return
    try:
        consumer_options(consumer)
    except ConfigurationError as error:
        yield Error(str(error), obj=consumer, id="nats_consumer.E003")
        return
    if left_out := subjects_left_out(consumer):
        yield CheckWarning(
            f"{place} has no filter, so it gets {consumer.subjects[0]!r} alone; these subjects "
            f"will not arrive: {', '.join(left_out)}.",
            hint="Set filter_subject (such as 'orders.*') or filter_subjects.",
            obj=consumer,
            id="nats_consumer.W001",
        )


def _same_names() -> Iterator[CheckMessage]:
    for group in registry.duplicates():
        yield Error(registry.duplicate_message(group), id="nats_consumer.E004")


def _same_durables() -> Iterator[CheckMessage]:
    users: dict[tuple[str | None, str], list[str]] = defaultdict(list)
    for consumer in registry.consumers():
        try:
            durable, _ = durable_of(consumer)
        except (ConfigurationError, ValueError):
            continue  # E003 reports it
        users[consumer.stream_name, durable].append(registry.label(consumer))
    for (stream, durable), places in users.items():
        if len(places) > 1:
            yield Error(
                f"{' and '.join(places)} share the durable {durable!r} on stream {stream!r}, so "
                "each would get only a part of the messages.",
                hint="Give each a durable_name of its own.",
                id="nats_consumer.E005",
            )
