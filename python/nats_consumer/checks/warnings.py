"""Warnings about a consumer class: it can run, but probably not as intended."""

import sys
from collections.abc import Iterator
from difflib import get_close_matches
from inspect import isabstract
from pkgutil import iter_modules

from django.apps import apps

from nats_consumer.consumer import NatsConsumer
from nats_consumer.declare.batches import is_batch
from nats_consumer.declare.declaration import Declaration, is_overridden, project_classes
from nats_consumer.declare.filters import declared_filter, loose_pattern
from nats_consumer.declare.options import START_ATTRIBUTES
from nats_consumer.declare.registry import bases, consumers
from nats_consumer.declare.retry import retry_policy
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.names import overlap
from nats_consumer.outcomes import ErrorAckBehavior

_METHODS = ("handle_message", "handle_batch", "handle_error", "setup")
# The earlier packages called these; here nobody does.
_OF_THE_ENGINE = (
    "deliver_subject",
    "handle_message_error",
    "schedule_retry",
    "setup_subscriptions",
    "unsubscribe",
    "wrap_handle_message",
)
_NOT_OF_THE_COMMAND = ("run", "start", "stop")
_OF_BATCHES = ("max_batch", "max_batch_bytes", "max_batch_wait", "common_errors")
# So close that "currency" is not taken for "concurrency".
_ALIKE = 0.9


def filters_beside_subjects(consumer: type[Declaration]) -> list[str]:
    """The filters that no subject of `subjects` can match."""
    subjects = consumer.subjects or ()
    if isinstance(subjects, str) or is_overridden(consumer, "get_filter_subject"):
        return []
    try:
        filters = declared_filter(consumer)
    except ConfigurationError:
        return []  # consumer_options() says so
    patterns = [*map(loose_pattern, subjects)]
    return [each for each in filters if subjects and not any(overlap(each, p) for p in patterns)]


def without_effect(consumer: type[Declaration]) -> Iterator[str]:
    """Yield a warning for each attribute that has no effect beside the others."""
    policy = str(getattr(consumer.deliver_policy, "value", consumer.deliver_policy))
    for needed, attribute in START_ATTRIBUTES.items():
        if getattr(consumer, attribute) is not None and policy != needed:
            yield (
                f"{attribute} does nothing with deliver_policy {policy!r}. Set deliver_policy = "
                f"{needed!r}, or remove {attribute}."
            )
    if consumer.initial_retry_delay > consumer.max_retry_delay:
        yield (
            f"initial_retry_delay ({consumer.initial_retry_delay:g} s) is longer than "
            f"max_retry_delay ({consumer.max_retry_delay:g} s), so every retry waits "
            f"{consumer.max_retry_delay:g} s. Raise max_retry_delay."
        )
    # Of the class itself: a base of the project may have them for its pull consumers.
    for attribute in ("batch_size", "fetch_timeout"):
        if consumer.kind == "push" and attribute in vars(consumer):
            yield (
                f"{attribute} does nothing for a push consumer: the server decides when "
                "to send. Remove it, or derive from JetstreamPullConsumer."
            )
    for attribute in _OF_BATCHES:
        if attribute in vars(consumer) and not is_batch(consumer):
            yield f"{attribute} does nothing without handle_batch. Write that, or remove it."
    behavior = ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
    if consumer.handle_error_ack_behavior is behavior and not hasattr(consumer, "handle_error"):
        yield (
            f"handle_error_ack_behavior {behavior.name} leaves the decision to handle_error, "
            "which the class does not define. Define it, or choose another behavior."
        )


def retries_without_pause(consumer: type[Declaration]) -> bool:
    """Whether a message that always fails comes again and again without a pause."""
    if consumer.handle_error_ack_behavior is not ErrorAckBehavior.NAK:
        return False
    try:
        return retry_policy(consumer).max_delay == 0
    except ConfigurationError:
        return False  # consumer_options() says so


def longest_hold(consumer: type[Declaration]) -> float:
    """The longest delay, in seconds, for which a retry holds up an ordered consumer; 0.0 for
    others."""
    if not consumer.ordered:
        return 0.0
    try:
        policy = retry_policy(consumer)
    except ConfigurationError:
        return 0.0  # consumer_options() says so
    return max([policy.max_delay, *policy.delays])


def unimported() -> Iterator[tuple[str, list[str]]]:
    """The `consumers` packages of apps that register nothing, each with its modules."""
    registered = {each.__module__ for each in [*consumers(), *bases()]}
    for config in apps.get_app_configs():
        package = sys.modules.get(f"{config.name}.consumers")
        if package is None or not hasattr(package, "__path__"):
            continue
        names = [each.name for each in iter_modules(package.__path__)]
        missing = [name for name in names if f"{package.__name__}.{name}" not in sys.modules]
        if missing and not any(each.startswith(package.__name__) for each in registered):
            yield package.__name__, missing


def without_stream() -> list[type[Declaration]]:
    """The classes of the installed apps that say what to consume and how, and nothing derives
    from, but that never run, because they have no stream_name."""
    return [
        consumer
        for consumer in bases()
        if not consumer.stream_name
        and not consumer.__subclasses__()
        and not isabstract(consumer)
        and any(hasattr(consumer, name) for name in ("handle_message", "handle_batch"))
        and (consumer.subjects or consumer.filter_subject or consumer.filter_subjects)
        and apps.get_containing_app_config(consumer.__module__)
    ]


def uncalled(consumer: type[Declaration]) -> Iterator[str]:
    """Yield a warning for each method of the earlier packages that nobody calls any more."""
    for method in _OF_THE_ENGINE:
        if is_overridden(consumer, method):
            yield (
                f"nothing calls its {method}(): the engine fetches, retries and settles. "
                "Move its code into handle_message or handle_error."
            )
    for method in _NOT_OF_THE_COMMAND:
        if is_overridden(consumer, method):
            yield (
                f"manage.py nats_consumer does not call its {method}(). Move its code into "
                "__init__, or run the consumer from your own code."
            )


def misspelt(consumer: type[Declaration]) -> dict[str, str]:
    """The attributes that nothing reads, each with the one of ours that it looks like."""
    ours = [*_METHODS, *(name for name in dir(NatsConsumer) if not name.startswith("_"))]
    bare = {_bare(name): name for name in ours}
    found: dict[str, str] = {}
    for cls in project_classes(consumer):
        for name in vars(cls):
            if name.startswith("_") or name in ours:
                continue
            if close := get_close_matches(_bare(name), bare, n=1, cutoff=_ALIKE):
                found[name] = bare[close[0]]
    return found


def _bare(name: str) -> str:
    """The name without what is easily forgotten or added: underscores, case and the plural."""
    joined = name.replace("_", "").lower()
    return joined[:-3] + "y" if joined.endswith("ies") else joined.removesuffix("s")
