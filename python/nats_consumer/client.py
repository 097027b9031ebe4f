"""A connection of your own: publish, request, and look after streams."""
# ruff: noqa: ASYNC109 - the parameters are those of nats-py

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .connect import connect_options, resolve
from .jetstream import JetStream

if TYPE_CHECKING:
    from ._native import Connection


@dataclass(frozen=True)
class Reply:
    """The answer to a request."""

    data: bytes


class Client:
    """A connected client; `async with` closes it. Made by get_nats_client()."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def jetstream(self, *, timeout: float = 5.0) -> JetStream:
        """Streams and publishing to them; `timeout` in seconds for each request."""
        return JetStream(self._connection, timeout=timeout)

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a message to whoever listens now: nothing is stored or confirmed. To store it, use
        jetstream().publish()."""
        await self._connection.publish(subject, payload, reply or None, headers)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a message and wait up to `timeout` seconds for one answer."""
        return Reply(await self._connection.request(subject, payload, timeout, headers))

    async def flush(self, timeout: float = 10.0) -> None:
        """Wait up to `timeout` seconds until the server has all that was published."""
        await self._connection.flush(timeout)

    async def drain(self) -> None:
        """Send what is buffered, then close."""
        await self._connection.drain()

    async def close(self) -> None:
        """Close the connection. Closing twice is fine."""
        await self._connection.close()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is up at this moment."""
        return self._connection.is_connected

    @property
    def is_closed(self) -> bool:
        """Whether the connection was closed for good."""
        return self._connection.is_closed

    @property
    def connected_url(self) -> str:
        """The server it is connected to."""
        return self._connection.connected_url

    @property
    def max_payload(self) -> int:
        """The largest payload the server takes, in bytes."""
        return self._connection.max_payload

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def get_nats_client(**connect_args: Any) -> Client:
    """A client connected as NATS_CONSUMER["connect_args"] says; an argument replaces the setting
    of its name. Raises ConfigurationError, Unreachable or Denied."""
    # On first use: importing nats_consumer, as every management command does, stays light.
    from . import _native

    options = await asyncio.to_thread(resolve, connect_options(connect_args))
    return Client(await _native.connect(options))
