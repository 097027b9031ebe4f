"""System checks of settings and consumers."""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as CheckWarning

from nats_consumer import settings
from nats_consumer.connect import args
from nats_consumer.connect.args import check_sign_in, connect_callbacks, connect_options
from nats_consumer.connect.secret import Address
from nats_consumer.declare import registry
from nats_consumer.declare.arguments import Plan
from nats_consumer.declare.batches import check_batch, handler_of, is_batch, plan_of_handler
from nats_consumer.declare.declaration import Declaration, label
from nats_consumer.declare.durable import default_durable, shared_durables
from nats_consumer.declare.filters import left_out_message
from nats_consumer.declare.handler import HandlerProblems, project_handlers
from nats_consumer.declare.middleware import middleware
from nats_consumer.declare.options import consumer_options
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.payloads.event import Event, events
from nats_consumer.publish.middleware import publish_middleware
from nats_consumer.run import event_loop
from nats_consumer.templates import pattern_of

from .databases import database_problems
from .rolled_back import raises_ack_in_transaction
from .unawaited import unawaited_calls
from .warnings import (
    filters_beside_subjects,
    longest_hold,
    misspelt,
    retries_without_pause,
    uncalled,
    unimported,
    without_effect,
    without_stream,
)

# A minute is the default of max_retry_delay.
_LONG_HOLD_SECONDS = 60
_SENTRY = "nats_consumer.contrib.sentry.isolate"


@register("nats_consumer")
def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: NATS_CONSUMER has a wrong key, type or value."""
    readers: list[Callable[[], object]] = [
        lambda: settings.check_keys(args.KEYS),
        settings.connections,
        *(partial(read, using=using) for using in _connections() for read in _OF_CONNECTIONS),
        default_durable,
        settings.manage_durables,
        settings.max_threads,
        settings.shutdown_timeout,
        settings.http,
        settings.ready_grace,
        settings.workers,
        settings.max_messages,
        settings.max_messages_jitter,
        settings.max_rss,
        settings.worker_start_timeout,
        settings.hung_after,
        settings.embedded_store,
        settings.excluded_apps,
        settings.migrates_streams_in_tests,
        settings.outbox_relay,
        settings.inbox_retention,
        settings.admin_payload,
        settings.trace_parent,
        middleware,
        publish_middleware,
        event_loop.check,
    ]
    problems: dict[str, None] = {}
    for read in readers:
        try:
            read()
        except ConfigurationError as error:
            problems[str(error)] = None
    return [Error(problem, id="nats_consumer.E001") for problem in problems]


_OF_CONNECTIONS: tuple[Callable[..., object], ...] = (
    connect_options,
    check_sign_in,
    connect_callbacks,
)


def _connections() -> tuple[str, ...]:
    try:
        return settings.connections()
    except ConfigurationError:
        return (settings.DEFAULT_CONNECTION,)  # check_settings() says so


@register("nats_consumer")
def check_secrets(**_: Any) -> list[CheckMessage]:
    """W010: credentials where Django's debug page and its error reports show them."""
    return [
        CheckWarning(
            f'A URL of {settings.place_of(using)}["servers"] holds credentials. '
            "Django hides settings by their names, so its debug page and error reports show them.",
            hint="Set user and password, or token, beside servers.",
            id="nats_consumer.W010",
        )
        for using in _connections()
        if _has_credentials(using)
    ]


def _has_credentials(using: str) -> bool:
    try:
        servers = connect_options(using=using).servers
    except ConfigurationError:
        return False  # check_settings() says so
    return any(Address(server).has_credentials() for server in servers)


@register("nats_consumer")
def check_http(**_: Any) -> list[CheckMessage]:
    """W017: metrics of a development machine that others can read."""
    try:
        address = settings.http()
    except ConfigurationError:
        return []  # check_settings() says so
    if address is None or settings.is_loopback(address) or not django_settings.DEBUG:
        return []
    return [
        CheckWarning(
            f'NATS_CONSUMER["http"] is {address!r} and DEBUG is True: other machines can read the '
            "probes and metrics of this one.",
            hint="Use '127.0.0.1' as the host, or set DEBUG to False.",
            id="nats_consumer.W017",
        )
    ]


@register("nats_consumer")
def check_sentry(**_: Any) -> list[CheckMessage]:
    """W019: Sentry without the scopes that keep messages apart."""
    sdk = sys.modules.get("sentry_sdk")
    if sdk is None or not sdk.is_initialized() or not registry.consumers():
        return []
    try:
        if _SENTRY in settings.middleware():
            return []
    except ConfigurationError:
        return []  # check_settings() says so
    return [
        CheckWarning(
            "Sentry is initialised, and consumers run without its middleware: tags and breadcrumbs "
            "of one message appear in the events of others.",
            hint=f'Add {_SENTRY!r} to NATS_CONSUMER["middleware"].',
            id="nats_consumer.W019",
        )
    ]


@register("nats_consumer")
def check_consumers(**_: Any) -> list[CheckMessage]:
    """E002 to E006, E008, E009, W001, W005 to W008, W013, W015 and W018: what is wrong with each.
    W002: two that share a durable, which only the command that runs both refuses. W012: one that
    never runs. W014: modules of a `consumers` package that nothing imports."""
    consumers = registry.consumers() if _has_settings() else []
    messages = [problem for consumer in consumers for problem in _own_problems(consumer)]
    shared = shared_durables(consumers)
    messages += [CheckWarning(text, id="nats_consumer.W002") for text in shared]
    messages += [_not_imported(package, names) for package, names in unimported()]
    return [*messages, *map(_never_runs, without_stream())]


def _not_imported(package: str, names: list[str]) -> CheckMessage:
    return CheckWarning(
        f"The package {package} does not import {', '.join(names)}: consumers in there never run.",
        hint=f"Import them in its __init__.py: from . import {', '.join(names)}",
        id="nats_consumer.W014",
    )


def _never_runs(consumer: type[Declaration]) -> CheckMessage:
    return CheckWarning(
        f"{consumer.__name__} has no stream_name, so it never runs.",
        hint="Set stream_name. If it is a base class for others, remove its subjects.",
        obj=consumer,
        id="nats_consumer.W012",
    )


def _has_settings() -> bool:
    """Whether NATS_CONSUMER can be read; each consumer would repeat what E001 says of it."""
    try:
        settings.connections()
        default_durable()
    except ConfigurationError:
        return False
    return True


@register("nats_consumer")
def check_handlers(**_: Any) -> list[CheckMessage]:
    """W009: a ConsumerHandler that can be made without arguments lacks a method. W011: it lists a
    wildcard that has no method. E005: a method cannot be called as its signature says."""
    return [each for found in project_handlers() for each in _handler_problems(found)]


def _handler_problems(found: HandlerProblems) -> Iterator[CheckMessage]:
    handler = found.handler
    if found.uncallable:
        yield Error(found.uncallable, obj=handler, id="nats_consumer.E005")
    if found.missing:
        yield CheckWarning(
            f"{handler.__name__} has no {', '.join(found.missing)}, which its subjects need. Such "
            "messages go to fallback_handle.",
            hint="Write the method, mark one with @handle, or remove the subject from the list.",
            obj=handler,
            id="nats_consumer.W009",
        )
    for text in found.without_method:
        yield CheckWarning(
            f"{handler.__name__}: {text}",
            hint="Until then such messages go to fallback_handle.",
            obj=handler,
            id="nats_consumer.W011",
        )


@register("nats_consumer")
def check_events(**_: Any) -> list[CheckMessage]:
    """E007: two events with one subject and version."""
    found: dict[tuple[str, int], list[Event]] = defaultdict(list)
    for each in events():
        found[pattern_of(each.subject), each.version].append(each)
    return [
        Error(
            f"{' and '.join(label(each.kind) for each in same)} are events of one subject, "
            f"{same[0].subject!r}, and one version.",
            hint="Give each its own subject.",
            id="nats_consumer.E007",
        )
        for same in found.values()
        if len(same) > 1
    ]


@register("nats_consumer")
def check_databases(**_: Any) -> list[CheckMessage]:
    """W004, W020, W021: databases that do not fit the threads of the consumers."""
    threads = {each.__name__: _threads_of(each) for each in registry.consumers()}
    return [
        problem
        for alias, database in django_settings.DATABASES.items()
        for problem in database_problems(alias, database, threads)
    ]


@register("nats_consumer")
def check_threads(**_: Any) -> list[CheckMessage]:
    """W022: a process has fewer threads than a consumer's concurrency."""
    try:
        most = settings.max_threads()
    except ConfigurationError:
        return []  # check_settings() says so
    return [
        CheckWarning(
            f"{each.__name__} has a concurrency of {threads}, and a process has at most {most} "
            "threads for `def` handlers.",
            hint=f'Raise NATS_CONSUMER["max_threads"] to {threads} or more, if the database has as '
            "many connections, or lower the concurrency.",
            obj=each,
            id="nats_consumer.W022",
        )
        for each in registry.consumers()
        if (threads := _threads_of(each)) > most
    ]


def _threads_of(consumer: type[Declaration]) -> int:
    """How many threads its handlers run in; 0 for `async def`."""
    try:
        is_async = iscoroutinefunction(handler_of(consumer))
        return 0 if is_async else consumer_options(consumer).concurrency
    except ConfigurationError:
        return 0  # check_consumers() says why


def _own_problems(consumer: type[Declaration]) -> Iterator[CheckMessage]:
    try:
        check_batch(consumer)
    except ConfigurationError as error:
        yield Error(
            f"{consumer.__name__} cannot run: {error}", obj=consumer, id="nats_consumer.E008"
        )
        return
    try:
        handler = handler_of(consumer)
    except ConfigurationError as error:
        yield Error(
            f"{consumer.__name__} cannot run: {error}", obj=consumer, id="nats_consumer.E002"
        )
        return
    problems = [*_argument_problems(consumer, plan_of_handler(consumer))]
    if problems:
        yield from problems
        return
    try:
        consumer_options(consumer)
    except ConfigurationError as error:
        yield Error(str(error), obj=consumer, id="nats_consumer.E003")
        return
    yield from _refusals(consumer, is_async=iscoroutinefunction(handler))
    for call in unawaited_calls(consumer):
        yield Error(
            f"{consumer.__name__}: its handle_message calls {call} without `await`, so the handler "
            "never runs and the message is acknowledged.",
            hint=f"Write: await {call}",
            obj=consumer,
            id="nats_consumer.E004",
        )
    yield from _rolled_back(consumer)
    if text := left_out_message(consumer):
        yield CheckWarning(text, obj=consumer, id="nats_consumer.W001")
    yield from _warnings(consumer)


def _rolled_back(consumer: type[Declaration]) -> Iterator[CheckMessage]:
    handler = "handle_batch" if is_batch(consumer) else "handle_message"
    for name, consequence in (
        (handler, "such an attempt fails"),
        ("handle_error", "it counts as failed, and the message is not acknowledged"),
    ):
        if raises_ack_in_transaction(getattr(consumer, name, None)):
            yield CheckWarning(
                f"{consumer.__name__}: its {name} raises Ack() inside transaction.atomic(), which "
                f"rolls back what it did: {consequence}.",
                hint="Write `return Ack()`, or raise it after the block.",
                obj=consumer,
                id="nats_consumer.W015",
            )


def _refusals(consumer: type[Declaration], *, is_async: bool) -> Iterator[CheckMessage]:
    try:
        layers = middleware()
    except ConfigurationError:
        return  # check_settings() says so
    for each in layers:
        if text := each.refusal(is_async=is_async):
            yield Error(
                f"{consumer.__name__} cannot run: {text}", obj=consumer, id="nats_consumer.E009"
            )


def _argument_problems(owner: type, plan: Plan | None) -> Iterator[CheckMessage]:
    if plan is None:
        return
    for text in plan.faults:
        yield Error(f"{owner.__name__}.{text}", obj=owner, id="nats_consumer.E005")
    for text in plan.undecodable:
        yield Error(f"{owner.__name__}.{text}", obj=owner, id="nats_consumer.E006")


def _warnings(consumer: type[Declaration]) -> Iterator[CheckMessage]:
    name = consumer.__name__
    if beside := filters_beside_subjects(consumer):
        yield CheckWarning(
            f"{name} filters by {', '.join(map(repr, beside))}, which none of its subjects can "
            f"match: {', '.join(consumer.subjects)}.",
            hint="Fix the filter or the subjects.",
            obj=consumer,
            id="nats_consumer.W005",
        )
    for text in without_effect(consumer):
        yield CheckWarning(f"{name}: {text}", obj=consumer, id="nats_consumer.W006")
    if retries_without_pause(consumer):
        yield CheckWarning(
            f"{name} hands a message back after its last attempt (NAK), and max_retry_delay is 0: "
            "a message that always fails is tried hundreds of times a second without end.",
            hint="Give it a max_retry_delay, or another handle_error_ack_behavior.",
            obj=consumer,
            id="nats_consumer.W013",
        )
    if (seconds := longest_hold(consumer)) > _LONG_HOLD_SECONDS:
        yield CheckWarning(
            f"{name} is ordered, and a retry may wait for {seconds:g} s: all other messages wait "
            "meanwhile.",
            hint="Lower max_retry_delay or backoff_delays.",
            obj=consumer,
            id="nats_consumer.W018",
        )
    for text in uncalled(consumer):
        yield CheckWarning(f"{name}: {text}", obj=consumer, id="nats_consumer.W008")
    for attribute, close in misspelt(consumer).items():
        yield CheckWarning(
            f"{name} has an unknown attribute {attribute!r}. Did you mean {close!r}?",
            hint="If the attribute is your own, start its name with an underscore.",
            obj=consumer,
            id="nats_consumer.W007",
        )
