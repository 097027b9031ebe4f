"""One consumer, kept running: started, watched, and started again when it ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Protocol, TypeVar

from nats_consumer import lanes
from nats_consumer.connect.args import patience
from nats_consumer.declare.declaration import Declaration
from nats_consumer.declare.filters import left_out_message
from nats_consumer.declare.handler import ConsumerHandler
from nats_consumer.declare.once import check_methods, check_table
from nats_consumer.declare.options import (
    ConsumerOptions,
    Overrides,
    consumer_options,
)
from nats_consumer.declare.retry import retry_policy
from nats_consumer.declare.signatures import made_without_arguments
from nats_consumer.exceptions import (
    ConfigurationError,
    NatsConsumerError,
    RequestTimeout,
    ServiceUnavailable,
)
from nats_consumer.lanes.own_thread import own_thread
from nats_consumer.streams.operation import StreamOperation

from .batch_dispatch import dispatch_for
from .dispatch import Dispatch
from .pauses import Pauses, jittered

if TYPE_CHECKING:
    from nats_consumer._native import Consumption

logger = logging.getLogger("nats_consumer.consumer")

_RANDOM = Random()  # noqa: S311 -- it spreads pauses
# How long running handlers may take when a consumption has ended, before a new one starts.
_LEFT_OVER_SECONDS = 5.0
# How long a drain waits for a start that is under way, so as to drain that too.
_START_SECONDS = 5.0
# An election takes some five seconds, a cluster that starts somewhat longer.
_ELECTION_SECONDS = 15.0
_ELECTION_PAUSE = 0.5

_Answer = TypeVar("_Answer")

Consume = Callable[[ConsumerOptions, Dispatch], Awaitable["Consumption"]]
# Operations, and the connection of their consumer.
Apply = Callable[[list[StreamOperation], str], Awaitable[None]]


class Runnable(Declaration, Protocol):
    """A consumer that the engine can run."""

    def _attach(self, consumption: "Consumption") -> None:
        """Count from now on with this consumption."""

    async def _disconnect(self) -> None:
        """Close its own client."""


class KeptRunning:
    """One consumer class that is started again whenever it ends.

    `consume` starts the engine for it; `apply`, if the streams are to be set up, executes the
    operations of its setup(); `note_failed_start` is called with the name after each start that
    fails; `make` gives the instance, where it is not a new one. `first_start` ends with the first
    start, or with its exception, which the code that waits for it reports; all later ones are
    logged."""

    def __init__(
        self,
        consumer_class: type[Runnable],
        *,
        consume: Consume,
        apply: Apply | None = None,
        note_failed_start: Callable[[str], None] = lambda _name: None,
        overrides: Overrides | None = None,
        make: Callable[[], Runnable] | None = None,
    ) -> None:
        self.name = consumer_class.__name__
        self._log = logging.LoggerAdapter(logger, {"consumer": self.name})
        self.first_start: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._make = make or partial(made_without_arguments, consumer_class)
        self._consume = consume
        self._apply = apply
        self._note_failed_start = note_failed_start
        self._overrides = overrides
        self._setup_failure: Exception | None = None
        self._consumer: Runnable | None = None
        self._dispatch: Dispatch | None = None
        self._consumption: Consumption | None = None
        self._draining = False
        self._was_reported = False
        self._not_starting = asyncio.Event()
        self._not_starting.set()

    async def set_up(self) -> None:
        """Execute the operations of setup(), if they are to be. A failure is kept for the first
        start, so that all consumers are set up before the first of them starts."""
        try:
            with _without_exit():
                await self._once_available(self._apply_setup)
        except Exception as error:
            self._setup_failure = error

    async def run(self) -> None:
        """Keep the consumer running until it is drained or this is cancelled. What goes wrong is
        logged by its name; the pauses before each new start grow from 1 to 30 seconds."""
        loop = asyncio.get_running_loop()
        pauses = Pauses(_RANDOM)
        while not self._draining:
            began = loop.time()
            await self._run_once()
            if self._draining:
                return
            pause = pauses.after(loop.time() - began)
            await asyncio.sleep(pause)
            if self._draining:
                return
            if self._was_reported:  # Else the caller may give up after the first start.
                self._log.info("%s: restarting after %.1f s.", self.name, pause)

    async def drain(self, seconds: float) -> None:
        """Take nothing new and let what runs finish, for up to `seconds`."""
        self._draining = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._not_starting.wait(), min(seconds, _START_SECONDS))
        if self._consumption is not None:
            await self._drain(self._consumption, seconds)
        if self._consumer is not None:
            await self._consumer._disconnect()

    async def _drain(self, consumption: "Consumption", seconds: float) -> None:
        unfinished = await consumption.drain(seconds)
        if unfinished and self._dispatch is not None:
            self._log.warning(
                "%s: handlers still running after %g s: %d. They are %s.",
                self.name,
                seconds,
                unfinished,
                self._dispatch.interruption,
            )

    def stuck_threads(self) -> list[str]:
        """The names of its threads that still run a handler."""
        return self._dispatch.stuck_threads() if self._dispatch else []

    async def _run_once(self) -> None:
        self._not_starting.clear()
        try:
            with _without_exit():
                consumption = await self._start()
        except Exception as error:
            self._note_failed_start(self.name)
            self._report_start(error)
            return
        finally:
            self._not_starting.set()
        self._report_start(None)
        try:
            await self._until_finished(consumption)
        except asyncio.CancelledError:
            # The loop ends. What goes on without it would take messages that nobody handles.
            consumption.stop()
            raise
        except Exception as error:
            self._log.error(
                "%s: the consumer ended: %s", self.name, error, exc_info=is_unexpected(error)
            )
        finally:
            self._consumption = None
            if self._dispatch is not None:
                self._dispatch.end()

    async def _until_finished(self, consumption: "Consumption") -> None:
        await consumption.finished()
        if not self._draining:
            self._log.error("%s: the consumer ended without being asked to.", self.name)
            await self._drain(consumption, _LEFT_OVER_SECONDS)

    async def _start(self) -> "Consumption":
        if self._setup_failure is not None:
            failure, self._setup_failure = self._setup_failure, None
            raise failure
        consumer = self._instance()
        options = consumer_options(consumer, self._overrides)
        if left_out := left_out_message(consumer):
            self._log.warning("%s", left_out)
        self._log.debug("%s: starting with %s.", self.name, options)
        await self._once_available(self._apply_setup)
        if consumer.idempotent:
            await asyncio.to_thread(check_table, consumer)
        dispatch = dispatch_for(consumer, options.concurrency)
        consumption = await self._once_available(lambda: self._consume(options, dispatch))
        self._dispatch, self._consumption = dispatch, consumption
        consumer._attach(consumption)
        if self._draining:
            return consumption  # drain() waits for it
        dispatch.start(consumption)
        self._log.info(
            "%s: consuming %s from stream %s (durable %s, %s, %d at a time).",
            self.name,
            ", ".join(options.filter_subjects),
            options.stream,
            consumption.durable,
            options.kind,
            options.concurrency,
        )
        return consumption

    async def _once_available(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Return the result of `call`. While JetStream has no leader, call it again: for as long as
        a server is waited for, and at least for the time of an election."""
        loop = asyncio.get_running_loop()
        began, is_told = loop.time(), False
        while True:
            try:
                return await call()
            except (ServiceUnavailable, RequestTimeout) as error:
                seconds = max(_ELECTION_SECONDS, patience(self._instance().connection))
                if self._draining or loop.time() - began >= seconds:
                    raise
                if not is_told:
                    is_told = True
                    self._log.warning(
                        "%s: waiting up to %g s for JetStream: %s", self.name, seconds, error
                    )
            await asyncio.sleep(jittered(_ELECTION_PAUSE, _RANDOM))

    def _instance(self) -> Runnable:
        if self._consumer is None:
            consumer = self._make()
            _prepare_handlers(consumer)
            self._consumer = consumer
        return self._consumer

    async def _apply_setup(self) -> None:
        if self._apply is not None:
            consumer = self._instance()
            with own_thread():
                operations = await setup_operations(consumer)
            await self._apply(operations, consumer.connection)
            self._apply = None

    def log_failed_start(self, error: BaseException) -> None:
        """Log that the consumer did not start, with the traceback of an unexpected error."""
        self._was_reported = True
        self._log.error(
            "%s: the consumer did not start: %s",
            self.name,
            error,
            exc_info=error if is_unexpected(error) else None,
        )

    def _report_start(self, error: Exception | None) -> None:
        if self.first_start.done():
            if error is not None:
                self.log_failed_start(error)
        elif error is not None:
            self.first_start.set_exception(error)
        else:
            self._was_reported = True
            self.first_start.set_result(None)


async def setup_operations(consumer: Declaration) -> list[StreamOperation]:
    """The operations that setup() returns or yields, as `async def` or `def`; none if there
    is none. Raises ConfigurationError for anything but operations."""
    setup = getattr(consumer, "setup", None)
    answer = await lanes.call(setup) if setup is not None else None
    if answer is None:
        return []
    if isinstance(answer, StreamOperation):
        return [answer]
    # A generator's body is setup()'s code, so it runs where a plain `def` does.
    has_several = isinstance(answer, Iterable) and not isinstance(answer, str | bytes)
    operations = await lanes.call(list, answer) if has_several else [answer]
    for operation in operations:
        if not isinstance(operation, StreamOperation):
            raise ConfigurationError(
                f"setup() of {consumer.consumer_name} must return operations such as "
                f"operations.CreateStream(...), not {operation!r}."
            )
    return operations


def _prepare_handlers(consumer: Declaration) -> None:
    for handler in _handlers(consumer):
        handler.retry_policy = retry_policy(consumer)
        check_methods(consumer, handler)
        if missing := handler.validate_handlers():
            logger.warning(
                "%s: %s has no %s; such messages go to fallback_handle.",
                consumer.consumer_name,
                type(handler).__name__,
                ", ".join(dict.fromkeys(missing)),
                extra={"consumer": consumer.consumer_name},
            )


def _handlers(consumer: Declaration) -> Iterator[ConsumerHandler]:
    # vars() instead of getattr(), because that would evaluate properties.
    attributes: dict[str, object] = {}
    for cls in reversed(type(consumer).__mro__):
        attributes.update(vars(cls))
    attributes.update(vars(consumer))
    for value in attributes.values():
        if isinstance(value, ConsumerHandler):
            yield value


@contextmanager
def _without_exit() -> Iterator[None]:
    """Treat sys.exit() in an __init__ or a setup() as a consumer that cannot start; the
    others can."""
    try:
        yield
    except SystemExit as error:
        raise ConfigurationError(f"It called sys.exit({error}).") from error


def is_unexpected(error: BaseException) -> bool:
    """Whether the traceback says more than the message; those of our own errors say it all."""
    return not isinstance(error, NatsConsumerError)
