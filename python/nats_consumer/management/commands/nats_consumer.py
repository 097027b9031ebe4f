"""manage.py nats_consumer: run consumers until SIGTERM or Ctrl-C."""

from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser

from nats_consumer import settings
from nats_consumer.command_line import add_consumers, seconds_of
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
from nats_consumer.run.parent import Child

if TYPE_CHECKING:
    from nats_consumer.run.probes import Observers
    from nats_consumer.run.workers.limits import Limits

_Number = TypeVar("_Number", int, float)


class Command(BaseCommand):
    """Ends with status 0 after a drain, 1 if nothing could be started, 130 or 143 after a second
    signal, which is one that comes a second after the first or later."""

    help = "Run NATS consumers until SIGTERM or Ctrl-C, then let running handlers finish."

    def add_arguments(self, parser: CommandParser) -> None:
        """Each option replaces an attribute of the consumers or a setting."""
        add_consumers(parser)
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
            metavar="N",
            help="how many messages to ask for at once (pull)",
        )
        parser.add_argument(
            "--timeout",
            type=_reading(seconds_of, read_fetch_timeout),
            metavar="DURATION",
            help="how long a request for messages waits, such as 5s or a number of seconds (pull)",
        )
        parser.add_argument(
            "--concurrency",
            type=_reading(int, read_concurrency),
            metavar="N",
            help="how many messages to handle at once",
        )
        parser.add_argument(
            "--event-loop",
            choices=["asyncio", "uvloop"],
            help="the event loop (default: the setting event_loop_policy)",
        )
        parser.add_argument(
            "--http",
            type=_reading_text(settings.http),
            metavar="HOST:PORT",
            help="serve /livez, /readyz and /metrics there (default: the setting http, or nowhere)",
        )
        parser.add_argument(
            "--shutdown-timeout",
            type=_reading(seconds_of, settings.shutdown_timeout),
            metavar="DURATION",
            help="how long running handlers may take after SIGTERM, such as 2m or a number of "
            "seconds (default: 25)",
        )
        self._add_worker_arguments(parser)

    def _add_worker_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--workers",
            type=_reading(int, settings.workers),
            metavar="N",
            help="run this many worker processes under a supervisor (default: this process alone)",
        )
        parser.add_argument(
            "--max-messages",
            type=_reading(int, settings.max_messages),
            metavar="N",
            help="replace a worker that has handled this many messages",
        )
        parser.add_argument(
            "--max-messages-jitter",
            type=_reading(int, settings.max_messages_jitter),
            metavar="N",
            help="handle up to this many messages more, at random (default: a tenth)",
        )
        parser.add_argument(
            "--max-rss",
            type=_reading(int, settings.max_rss),
            metavar="MIB",
            help="replace a worker that uses more memory for 20 seconds",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the consumers. Raises CommandError if there are none, or none can be started."""
        child = Child.of_this_process()
        is_worker = child is not None and child.is_worker
        logs.make_visible(options["log_level"], is_worker=is_worker)
        overrides = Overrides(
            batch_size=options["batch_size"],
            fetch_timeout=options["timeout"],
            concurrency=options["concurrency"],
        )
        try:
            if child is None and options["reload"]:
                raise SystemExit(_reload(options))
            consumers = _consumers(options["names"])
            for consumer in consumers:
                consumer_options(consumer, overrides)
            if shared := shared_durables(consumers):
                raise CommandError("\n".join(shared))
            workers = None if child or options["reload"] else self._workers(options)
            if workers is not None:
                raise SystemExit(_supervise(workers, options))
            # Here, because it loads the engine, which a mistake above does not need.
            from nats_consumer.run.worker import Plan, run

            run(
                Plan(
                    consumers=consumers,
                    setup=options["setup"] and (child is None or child.runs_setup),
                    overrides=overrides,
                    shutdown_timeout=settings.shutdown_timeout(options["shutdown_timeout"]),
                    event_loop=options["event_loop"],
                    observers=_observers(child, options),
                    beside=beside_consuming,
                    # Not where call_command() runs it: its caller goes on.
                    exits=self._is_command_line,
                    restarts=self._is_command_line and child is None,
                )
            )
        except NatsConsumerError as error:
            raise CommandError(str(error)) from error

    @property
    def _is_command_line(self) -> bool:
        return getattr(self, "_called_from_command_line", False)

    def _workers(self, options: dict[str, Any]) -> int | None:
        """How many worker processes there shall be; None for this process alone."""
        if not self._is_command_line:
            if options["workers"]:
                raise CommandError("--workers runs this command line again, and there is none.")
            return None
        workers = settings.workers(options["workers"])
        limits = ("max_messages", "max_messages_jitter", "max_rss")
        given = [limit for limit in limits if options[limit] is not None]
        if workers is None and given:
            raise CommandError(f"--{given[0].replace('_', '-')} needs --workers.")
        return workers


def _reload(options: dict[str, Any]) -> int:
    if options["workers"]:
        raise CommandError("--reload runs one process. Leave --workers out.")
    return reload.run()


def _supervise(workers: int, options: dict[str, Any]) -> int:
    from nats_consumer.run.workers.supervisor import Supervision, supervise

    return supervise(
        Supervision(
            workers=workers,
            limits=_limits(options),
            shutdown_timeout=settings.shutdown_timeout(options["shutdown_timeout"]),
            http=settings.http(options["http"]),
            ready_grace=settings.ready_grace(),
            runs_setup=options["setup"],
        )
    )


def _limits(options: dict[str, Any]) -> "Limits":
    from nats_consumer.run.workers.limits import Limits

    most = settings.max_messages(options["max_messages"])
    jitter = settings.max_messages_jitter(options["max_messages_jitter"])
    if most is None and jitter is not None:
        raise CommandError("--max-messages-jitter needs --max-messages.")
    return Limits(
        max_messages=most,
        max_messages_jitter=(most or 0) // 10 if jitter is None else jitter,
        max_rss=settings.max_rss(options["max_rss"]),
        start_timeout=settings.worker_start_timeout(),
        hung_after=settings.hung_after(),
    )


def _observers(child: Child | None, options: dict[str, Any]) -> "Observers":
    from nats_consumer.run.probes import Observers

    if child is not None and child.is_worker:
        return Observers(page=child.page)  # the supervisor answers for it
    return Observers(http=settings.http(options["http"]), ready_grace=settings.ready_grace())


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


@contextmanager
def beside_consuming() -> Iterator[None]:
    """In the body, what the optional apps do beside consuming: relay the outbox, if workers are to
    do that, and clean the inbox."""
    with ExitStack() as running:
        if apps.is_installed("nats_consumer.contrib.outbox") and settings.outbox_relay():
            from nats_consumer.contrib.outbox.run import relays

            running.enter_context(relays())
        if apps.is_installed("nats_consumer.contrib.inbox"):
            from nats_consumer.contrib.inbox.clean import cleaning

            running.enter_context(cleaning())
        yield


def _reading_text(read: Callable[[object], str | None]) -> Callable[[str], str | None]:
    """Return a type for argparse: it converts the text with `read`."""

    def convert(text: str) -> str | None:
        try:
            return read(text)
        except ConfigurationError as error:
            raise ArgumentTypeError(str(error)) from error

    return convert


def _reading(
    kind: Callable[[str], _Number], read: Callable[[object], _Number | None]
) -> Callable[[str], _Number | None]:
    """Return the function for argparse that reads a text as a number that `read` accepts."""

    def convert(text: str) -> _Number | None:
        try:
            value: object = kind(text)
        except ValueError:
            value = text
        try:
            return read(value)
        except ConfigurationError as error:
            raise ArgumentTypeError(str(error)) from error

    return convert
