"""manage.py nats_consumer: run consumers until SIGTERM or Ctrl-C."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser

from nats_consumer import settings
from nats_consumer.consumer import NatsConsumer
from nats_consumer.declare.durable import shared_durables
from nats_consumer.declare.options import (
    Overrides,
    consumer_options,
    read_batch_size,
    read_concurrency,
    read_fetch_timeout,
)
from nats_consumer.exceptions import ConfigurationError, NatsConsumerError
from nats_consumer.run import logs, reload

_Number = TypeVar("_Number", int, float)


class Command(BaseCommand):
    """Ends with status 0 after a drain, 1 if nothing could be started, 130 or 143 after a second
    signal, which is one that comes a second after the first or later."""

    help = "Run NATS consumers until SIGTERM or Ctrl-C, then let running handlers finish."

    def add_arguments(self, parser: CommandParser) -> None:
        """Each option replaces an attribute of the consumers or a setting."""
        parser.add_argument(
            "names", nargs="*", metavar="NAME", help="class names, or app_label.Name; default: all"
        )
        parser.add_argument(
            "--setup", action="store_true", help="first run the operations that setup() returns"
        )
        parser.add_argument(
            "--reload", action="store_true", help="restart when a Python file changes"
        )
        parser.add_argument(
            "--log-level",
            choices=["DEBUG", "INFO", "WARNING", "ERROR"],
            help="level of the nats_consumer loggers (default: as LOGGING says, or INFO)",
        )
        parser.add_argument(
            "--batch-size",
            type=_reading(int, read_batch_size),
            help="how many messages to ask for at once (pull)",
        )
        parser.add_argument(
            "--timeout",
            type=_reading(float, read_fetch_timeout),
            help="how long a request for messages waits, in seconds (pull)",
        )
        parser.add_argument(
            "--concurrency",
            type=_reading(int, read_concurrency),
            help="how many messages to handle at once",
        )
        parser.add_argument(
            "--event-loop", choices=["asyncio", "uvloop"], help="default: event_loop_policy"
        )
        parser.add_argument(
            "--shutdown-timeout",
            type=_reading(float, settings.shutdown_timeout),
            help="seconds that running handlers may take after SIGTERM (default: 25)",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the consumers. Raises CommandError if there are none, or none can be started."""
        logs.make_visible(options["log_level"])
        overrides = Overrides(
            batch_size=options["batch_size"],
            fetch_timeout=options["timeout"],
            concurrency=options["concurrency"],
        )
        try:
            if reload.is_child():
                reload.end_with_parent()
            elif options["reload"]:
                raise SystemExit(reload.run())
            consumers = _consumers(options["names"])
            for consumer in consumers:
                consumer_options(consumer, overrides)
            if shared := shared_durables(consumers):
                raise CommandError("\n".join(shared))
            # Here, because it loads the engine, which a mistake above does not need.
            from nats_consumer.run.worker import Plan, run

            run(
                Plan(
                    consumers=consumers,
                    setup=options["setup"],
                    overrides=overrides,
                    shutdown_timeout=settings.shutdown_timeout(options["shutdown_timeout"]),
                    event_loop=options["event_loop"],
                    beside=_beside(),
                    # Not where call_command() runs it: its caller goes on.
                    exits=getattr(self, "_called_from_command_line", False),
                )
            )
        except NatsConsumerError as error:
            raise CommandError(str(error)) from error


def _consumers(names: list[str]) -> list[type[NatsConsumer]]:
    consumers = NatsConsumer.filter(names)
    if consumers:
        return consumers
    searched = ", ".join(config.name for config in apps.get_app_configs())
    raise CommandError(
        "No consumer is registered. Derive a class with a stream_name from JetstreamPushConsumer "
        f"or JetstreamPullConsumer, in the `consumers` module of an installed app ({searched}), or "
        "in one beside manage.py."
    )


def _beside() -> Callable[[], AbstractContextManager[None]]:
    """The relays of the outbox, if it is installed and workers are to relay."""
    if not apps.is_installed("nats_consumer.contrib.outbox") or not settings.outbox_relay():
        return nullcontext
    from nats_consumer.contrib.outbox.run import relays

    return relays


def _reading(kind: type[_Number], read: Callable[[object], _Number]) -> Callable[[str], _Number]:
    """What argparse calls: the text as a number that `read` accepts."""

    def convert(text: str) -> _Number:
        try:
            value: object = kind(text)
        except ValueError:
            value = text
        try:
            return read(value)
        except ConfigurationError as error:
            raise ArgumentTypeError(str(error)) from error

    return convert
