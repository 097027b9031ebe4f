"""Consumer classes: a project derives its own from them."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

from django.db import InterfaceError, OperationalError

from .client import Client, get_nats_client
from .declare import registry
from .declare.durable import declared_durable
from .declare.filters import declared_filter
from .declare.options import Overrides
from .exceptions import StreamNotFound, WorkerError
from .message import Message
from .names import check_name
from .outcomes import ErrorAckBehavior
from .settings import DEFAULT_CONNECTION

if TYPE_CHECKING:
    from ._native import Consumption
    from .run.own_run import OwnRun
    from .streams.operation import StreamOperation

    Operations: TypeAlias = StreamOperation | Iterable[StreamOperation] | None


__all__ = ["ErrorAckBehavior", "JetstreamPullConsumer", "JetstreamPushConsumer", "NatsConsumer"]


class NatsConsumer:
    """The base of push and pull consumers. A subclass with a `stream_name` is registered under its
    class name and can be run. A class is only a base for others if it has no `stream_name`, is
    abstract, or has subclasses but neither `handle_message` nor `handle_batch`.

    Write `handle_message(self, message)`, and if you want `handle_error(self, message, error,
    attempt)`, called once after the last attempt, and `setup(self)`, which returns operations for
    `manage.py nats_consumer --setup`. Each may be `async def` or `def`; a `def handle_message`
    runs in its own thread and may block, for instance on the ORM.

    Write `handle_batch(self, messages)` instead, with `max_batch`, to handle several messages with
    one call.

    Returning acknowledges the message; an exception makes the server deliver it again. Times are
    seconds. A `handle_message` that exceeds `handler_timeout` has failed: an `async def` is
    cancelled; a `def` continues in its thread, and its result is ignored.
    """

    kind: ClassVar[str] = ""

    connection: str = DEFAULT_CONNECTION
    stream_name: str | None = None
    subjects: Sequence[str] = ()
    filter_subject: str | type | None = None
    filter_subjects: Sequence[str | type] = ()
    durable_name: str | None = None
    deliver_policy: str = "all"
    start_sequence: int | None = None
    start_time: datetime | None = None

    max_retries: int = 3
    initial_retry_delay: float = 1.0
    max_retry_delay: float = 60.0
    backoff_factor: float = 2.0
    max_deliver: int | None = None
    backoff_delays: Sequence[float] | None = None
    handle_error_ack_behavior: ErrorAckBehavior = ErrorAckBehavior.NAK
    invalid_ack_behavior: ErrorAckBehavior = ErrorAckBehavior.DEAD_LETTER

    concurrency: int | None = None
    batch_size: int = 100
    fetch_timeout: float = 5.0
    ack_wait: float = 30.0
    max_ack_pending: int | None = None
    handler_timeout: float | None = None
    ordered: bool = False
    max_batch: int | None = None
    max_batch_wait: float = 0.5
    max_batch_bytes: int = 8 * 1024 * 1024
    common_errors: tuple[type[BaseException], ...] = (OperationalError, InterfaceError, OSError)
    idempotent: bool | str = False
    ephemeral: bool = False

    if TYPE_CHECKING:
        # For editors and type checkers. At run time a consumer has those that the project writes.
        def handle_message(self, *args: Any, **kwargs: Any) -> Any:
            """Handle one message. Returning acknowledges it; an exception makes it come again."""

        def handle_batch(self, *args: Any, **kwargs: Any) -> Any:
            """Handle several messages, instead of handle_message. Returning acknowledges them, but
            for those that a returned dict gives outcomes or exceptions."""

        def handle_error(self, message: Message, error: Exception, attempt: int, /) -> Any:
            """Called once, after the last attempt at the message failed with `error`."""

        def setup(self) -> Operations | Awaitable[Operations]:
            """Return operations for `manage.py nats_consumer --setup`."""

    _consumption: "Consumption | None" = None
    _earlier_successes: int = 0
    _earlier_errors: int = 0
    _earlier_repairs: int = 0
    _own_run: "OwnRun | None" = None
    _given_client: Client | None = None
    _client: Client | None = None

    def __init__(
        self,
        nats_client: Client | None = None,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """`nats_client`: client returned by the `nats_client` property. Other arguments are
        ignored, so that a subclass can pass on its own."""
        self._given_client = nats_client

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.stream_name is not None:
            check_name(cls.stream_name, f"stream_name of {cls.__name__}")
        if cls.__module__ != __name__:
            registry.register(cls)

    @classmethod
    def get(cls, name: str) -> "type[NatsConsumer]":
        """The registered consumer class called `name`, or "app_label.Name" where two apps have one
        of that name. Raises ConsumerNotFound, and ConfigurationError if the name is ambiguous."""
        return cast("type[NatsConsumer]", registry.consumer_named(name))

    @classmethod
    def get_consumer(cls, name: str) -> "type[NatsConsumer]":
        """Return the same as get()."""
        return cls.get(name)

    @classmethod
    def filter(cls, names: Sequence[str] | None = None) -> "list[type[NatsConsumer]]":
        """The registered classes called `names`; all if there are none. Raises like get()."""
        return cast("list[type[NatsConsumer]]", registry.consumers_named(names))

    @property
    def consumer_name(self) -> str:
        """The class's name, as in the logs and on the command line."""
        return type(self).__name__

    def get_durable_name(self) -> str:
        """The durable of this consumer. Override it if attributes are not enough."""
        return declared_durable(self)[0]

    def get_filter_subject(self) -> str:
        """The filter subject of this consumer; the first, if it has several. Override it if
        attributes are not enough."""
        return declared_filter(self)[0]

    def message_identity(self, message: Message) -> str:
        """The identity of the message among those with its subject, for `idempotent`. Override it
        where the publisher has a key of its own. By default the Nats-Msg-Id that it was published
        with, or stream, sequence and time."""
        return message.identity

    @staticmethod
    def get_message_id(msg: Message) -> str:
        """The delivery's number in the durable and the message's in the stream: "7.3"."""
        sequence = msg.metadata.sequence
        return f"{sequence.consumer}.{sequence.stream}"

    @classmethod
    async def stream_exists(cls) -> bool:
        """Whether the server has the stream. Raises Unreachable."""
        async with await get_nats_client(using=cls.connection) as client:
            try:
                await client.jetstream().stream_info(str(cls.stream_name))
            except StreamNotFound:
                return False
            return True

    @property
    def nats_client(self) -> Awaitable[Client]:
        """A client for handlers: `client = await self.nats_client`. It connects on first use and
        stays open until the consumer stops. The consumer's messages use another connection."""
        return self._connected_client()

    async def start(self) -> None:
        """Start consuming on the running event loop, and return. For code that runs a consumer
        without the command. Raises ConfigurationError, StreamNotFound, Unreachable and other
        NatsConsumerErrors. If the consumer ends later, the error is logged and it restarts."""
        await self._begin(Overrides()).started()

    async def run(self, batch_size: int | None = None, timeout: float | None = None) -> None:  # noqa: ASYNC109 - of a request, not of this call
        """start(), unless it is running, and wait until stop() is called. If it is cancelled, it
        stops the consumer first. `batch_size` and `timeout` (seconds) replace the attributes
        batch_size and fetch_timeout."""
        own = self._own_run
        if own is None or own.is_over:
            own = self._begin(Overrides(batch_size=batch_size, fetch_timeout=timeout))
            await own.started()
        try:
            await own.ended()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop fetching, let running handlers finish for up to NATS_CONSUMER["shutdown_timeout"]
        seconds, and disconnect. In a handler it returns at once and stops in the background. Raises
        WorkerError under the command, which stops by a signal."""
        own = self._own_run
        if own is None and self.is_running:
            raise WorkerError(
                f"{self.consumer_name} is run by manage.py nats_consumer, which stops it: send the "
                "process SIGTERM."
            )
        if own is not None:
            await own.stop()

    @property
    def total_success_count(self) -> int:
        """Number of messages that this consumer has handled."""
        return self._earlier_successes + self._count("succeeded")

    @total_success_count.setter
    def total_success_count(self, count: int) -> None:
        self._earlier_successes = count - self._count("succeeded")

    @property
    def total_error_count(self) -> int:
        """Number of messages whose last attempt failed."""
        return self._earlier_errors + self._count("exhausted")

    @total_error_count.setter
    def total_error_count(self, count: int) -> None:
        self._earlier_errors = count - self._count("exhausted")

    @property
    def total_repair_count(self) -> int:
        """Number of repairs: after a lost connection, a refused or unanswered request for
        messages, or a deleted durable."""
        return self._earlier_repairs + self._count("repairs")

    @property
    def state(self) -> str:
        """State of this consumer in the engine, in one word: "starting", "binding",
        "consuming", "paused", "stuck", "repairing", "denied", "unreachable", "no_stream",
        "draining" or "stopped"."""
        return "stopped" if self._consumption is None else self._consumption.state

    @property
    def is_running(self) -> bool:
        """Whether the engine works for this consumer: it has been started and neither drained nor
        stopped. It works while it repairs itself too: `state` tells whether messages are consumed.
        """
        return self._consumption is not None and self._consumption.is_running

    @property
    def is_connected(self) -> bool:
        """Whether the connection of this consumer is up. A server that hangs is noticed within ten
        seconds."""
        return self._consumption is not None and self._consumption.is_connected

    def _begin(self, overrides: Overrides) -> "OwnRun":
        # On first use: declaring consumers does not load the engine.
        from .run.own_run import OwnRun

        is_over = self._own_run is None or self._own_run.is_over
        if not is_over or self.is_running:
            raise WorkerError(f"{self.consumer_name} is running already.")
        self._own_run = OwnRun(self, overrides)
        return self._own_run

    @cached_property
    def _connecting(self) -> asyncio.Lock:
        return asyncio.Lock()

    async def _connected_client(self) -> Client:
        if self._given_client is not None:
            return self._given_client
        async with self._connecting:  # not one for each handler that asks first
            if self._client is None or self._client.is_closed:
                self._client = await get_nats_client(using=self.connection)
            return self._client

    async def _disconnect(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _attach(self, consumption: "Consumption") -> None:
        self._earlier_successes = self.total_success_count
        self._earlier_errors = self.total_error_count
        self._earlier_repairs = self.total_repair_count
        self._consumption = consumption

    def _count(self, counter: str) -> int:
        return 0 if self._consumption is None else self._consumption.counters()[counter]


def validate_stream_name(name: str) -> str:
    """Return the name if a stream can have it, as the earlier packages did. Raises ValueError."""
    return check_name(name, "The name of a stream")


# The name in the earlier packages.
NatsConsumerBase = NatsConsumer


class JetstreamPushConsumer(NatsConsumer):
    """A consumer that the server pushes messages to: low latency. Handles one message at a time, in
    order, unless `concurrency` is higher. Replicas share the work."""

    kind = "push"


class JetstreamPullConsumer(NatsConsumer):
    """A consumer that requests messages in batches: high throughput. Handles `concurrency` messages
    at once; the default is `batch_size`, or 10 threads if handle_message is a plain `def`."""

    kind = "pull"
