"""The client: publish, request, subscribe, and manage streams."""
# ruff: noqa: ASYNC109 - the parameters are those of nats-py

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nats_consumer.connect.args import connect_callbacks, connect_options
from nats_consumer.connect.log import carry_logs
from nats_consumer.connect.resolve import resolve
from nats_consumer.connect.secret import conceal
from nats_consumer.exceptions import (
    ConnectionClosed,
    ConnectionDraining,
    FlushTimeout,
    RequestTimeout,
)
from nats_consumer.settings import DEFAULT_CONNECTION

from .events import Listener
from .jetstream import JetStreamContext
from .outgoing import checked_headers, checked_payload
from .server import ServerUrl, ServerVersion
from .subscription import Callback, Kind, Limits, Subscription, check_callback

if TYPE_CHECKING:
    from nats_consumer._native import Connection, Msg
    from nats_consumer._native import Subscription as Native

_PENDING_MESSAGES = 512 * 1024
_PENDING_BYTES = 128 * 1024 * 1024
# How long a drain waits for the callbacks.
_DRAIN_SECONDS = 30.0


class Client:
    """A connected client; `async with` closes it. Made by get_nats_client()."""

    def __init__(
        self,
        connection: "Connection",
        listener: Listener | None = None,
        using: str = DEFAULT_CONNECTION,
    ) -> None:
        self._using = using
        self._connection = connection
        self._listener = listener or Listener()
        self._subscriptions: set[Subscription] = set()
        self._is_draining = False
        self._waiting_bytes = 0

    def jetstream(self, **options: Any) -> JetStreamContext:
        """Streams and publishing to them. Options: `timeout` in seconds for each request (5),
        `domain`, `prefix`, `publish_async_max_pending`."""
        return JetStreamContext(
            self._connection, open_subscription=self._open, using=self._using, **options
        )

    def jsm(self, **options: Any) -> JetStreamContext:
        """Return the same as jetstream()."""
        return self.jetstream(**options)

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a message to the current subscribers: it is not stored or confirmed. To store it,
        use jetstream().publish()."""
        lines = checked_headers(headers) if headers else None
        sending = self._connection.publish(subject, checked_payload(payload), reply or None, lines)
        self._waiting_bytes += len(payload)
        try:
            await sending
        finally:
            self._waiting_bytes -= len(payload)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,  # noqa: ARG002 - nats-py's; there is one style here
        headers: Mapping[str, str] | None = None,
    ) -> "Msg":
        """Send a message and wait up to `timeout` seconds for one answer. Raises NoResponders at
        once when nobody listens, RequestTimeout when nobody answered."""
        lines = checked_headers(headers) if headers else None
        return await self._connection.request(subject, checked_payload(payload), timeout, lines)

    async def subscribe(
        self,
        subject: str,
        queue: str = "",
        cb: Callback | None = None,
        future: "asyncio.Future[Msg] | None" = None,
        max_msgs: int = 0,
        pending_msgs_limit: int = _PENDING_MESSAGES,
        pending_bytes_limit: int = _PENDING_BYTES,
    ) -> Subscription:
        """Receive what is published to `subject` from now on, wildcards allowed. Of the
        subscriptions with the same `queue`, one gets each message. `cb`, a coroutine function, is
        called with one message after the other; an error of it goes to `error_cb`. Without one,
        take messages with `next_msg()` or iterate over `messages`. `future` gets the first
        message. After `max_msgs` messages the subscription ends."""
        limits = Limits.of(pending_msgs_limit, pending_bytes_limit)
        subscription = await self._open(
            lambda: self._connection.subscribe(subject, queue or None, limits, False),
            subject=subject,
            queue=queue,
            callback=_first_into(future) if future is not None else cb,
            kind=Subscription,
        )
        if max_msgs:
            await subscription.unsubscribe(max_msgs)
        return subscription

    async def flush(self, timeout: float = 10.0) -> None:
        """Wait up to `timeout` seconds until the server has all that was published. Raises
        FlushTimeout."""
        try:
            await self._connection.flush(timeout)
        except RequestTimeout as error:
            raise FlushTimeout(*error.args) from error

    async def rtt(self, timeout: float = 10.0) -> float:
        """How many seconds a round trip to the server takes. Raises RequestTimeout."""
        return await self._connection.rtt(timeout)

    async def drain(self) -> None:
        """Stop receiving, wait up to 30 seconds for the callbacks to finish, send what is buffered,
        and close. Raises ConnectionClosed."""
        if self.is_closed:
            raise ConnectionClosed
        if self._is_draining:
            return
        self._is_draining = True
        draining = [asyncio.create_task(each.drain()) for each in self._open_subscriptions()]
        if draining:
            _, late = await asyncio.wait(draining, timeout=_DRAIN_SECONDS)
            for task in late:
                task.cancel()
        await self.close()

    async def close(self) -> None:
        """Send what is buffered and close the connection; returns when `closed_cb` has. Closing
        twice is fine."""
        await self._connection.close()
        self._subscriptions.clear()
        await self._listener.finished()

    def new_inbox(self) -> str:
        """A subject that nobody else has, for answers."""
        return self._connection.new_inbox()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is up at this moment."""
        return self._connection.is_connected

    @property
    def is_closed(self) -> bool:
        """Whether the connection was closed for good."""
        return self._connection.is_closed

    @property
    def is_reconnecting(self) -> bool:
        """Whether the connection is lost and will come back."""
        return not self.is_connected and not self.is_closed

    @property
    def is_connecting(self) -> bool:
        """False: get_nats_client() returns when the client is connected."""
        return False

    @property
    def is_draining(self) -> bool:
        """Whether drain() is at work."""
        return self._is_draining and not self.is_closed

    @property
    def connected_url(self) -> ServerUrl | None:
        """The server it is connected to, or None."""
        return ServerUrl(self._connection.connected_url) if self.is_connected else None

    @property
    def servers(self) -> list[ServerUrl]:
        """The servers that it may connect to: those it was given, without credentials, and those of
        their cluster."""
        named = map(ServerUrl, self._connection.named_servers)
        return [*named, *self.discovered_servers]

    @property
    def discovered_servers(self) -> list[ServerUrl]:
        """The servers of the cluster that it was not given."""
        return [ServerUrl(url) for url in self._connection.discovered_servers]

    @property
    def pending_data_size(self) -> int:
        """The bytes of publish() calls that still wait for the connection."""
        return self._waiting_bytes

    @property
    def connected_server_version(self) -> ServerVersion:
        """The version of the server it was connected to last."""
        return ServerVersion(self._connection.server_version)

    @property
    def client_id(self) -> int | None:
        """The server's number for this connection, or None."""
        return self._connection.client_id if self.is_connected else None

    @property
    def max_payload(self) -> int:
        """The largest payload the server takes, in bytes."""
        return self._connection.max_payload

    @property
    def last_error(self) -> Exception | None:
        """The last error that was reported to `error_cb` or to the log."""
        return self._listener.last_error

    @property
    def stats(self) -> dict[str, int]:
        """Messages and bytes in and out, reconnects, and errors, since it was connected."""
        in_msgs, out_msgs, in_bytes, out_bytes, connects = self._connection.statistics
        return {
            "in_msgs": in_msgs,
            "out_msgs": out_msgs,
            "in_bytes": in_bytes,
            "out_bytes": out_bytes,
            "reconnects": max(connects - 1, 0),
            "errors_received": self._listener.errors_received,
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _open(
        self,
        begin: "Callable[[], Awaitable[Native]]",
        *,
        subject: str,
        queue: str = "",
        callback: Callback | None,
        kind: type[Kind],
    ) -> Kind:
        if self._is_draining and not self.is_closed:
            raise ConnectionDraining
        check_callback(callback)
        subscription = kind(
            await begin(),
            self._connection,
            self._listener,
            subject=subject,
            queue=queue,
            callback=callback,
        )
        self._subscriptions = {subscription, *self._open_subscriptions()}
        return subscription

    def _open_subscriptions(self) -> list[Subscription]:
        return [each for each in self._subscriptions if not each.has_ended]


def _first_into(future: "asyncio.Future[Msg]") -> Callback:
    async def take(message: "Msg") -> None:
        if not future.done():
            future.set_result(message)

    return take


async def get_nats_client(*, using: str = DEFAULT_CONNECTION, **connect_args: Any) -> Client:
    """A client connected as NATS_CONSUMER["connect_args"] says, or NATS_CONSUMER["connections"] for
    another connection than "default"; an argument replaces the setting of its name. Raises
    ConfigurationError, NoServers or Denied."""
    # On first use: importing nats_consumer, as every management command does, stays light.
    from nats_consumer import _native

    connect_args = conceal(connect_args)
    listener = Listener(connect_callbacks(connect_args, using))
    options = await asyncio.to_thread(resolve, connect_options(connect_args, using))
    carry_logs(_native.take_logs, _native.wake_logs)
    connection = await _native.connect(options)
    listener.start(connection.events())
    return Client(connection, listener, using)
