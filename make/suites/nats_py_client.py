"""Puts this package's client in the place of nats-py's, for nats-py's own tests.

A plugin for pytest: `-p nats_py_client`. Exceptions and structs stay nats-py's."""

import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Self
from weakref import WeakKeyDictionary

import nats
import nats.aio.client
import nats.errors
from django.conf import settings
from nats.nuid import NUID

from nats_consumer import get_nats_client
from nats_consumer.client import Client
from nats_consumer.client.subscription import Subscription

settings.configure(NATS_CONSUMER={"connect_args": {}})

# The files that a context was made of; a context cannot be read back.
_files: WeakKeyDictionary[ssl.SSLContext, dict[str, str]] = WeakKeyDictionary()


class TheirClient:
    """nats-py's Client, which is made before it is connected, with ours behind it."""

    def __init__(self) -> None:
        self._ours: Client | None = None
        self._nuid = NUID()  # nats.micro and some tests take names from it

    async def connect(self, servers: Any = "nats://localhost:4222", **options: Any) -> None:
        """Connect, with nats-py's options."""
        tls = options.pop("tls", None)
        if isinstance(tls, ssl.SSLContext):
            options |= _files.get(tls, {"tls": True})
        elif tls is not None:
            options["tls"] = tls
        options["servers"] = [servers] if isinstance(servers, str) else servers
        self._ours = await get_nats_client(**options)

    @property
    def is_connected(self) -> bool:
        """False before connect()."""
        return self._ours is not None and self._ours.is_connected

    @property
    def is_closed(self) -> bool:
        """False before connect()."""
        return self._ours is not None and self._ours.is_closed

    async def close(self) -> None:
        """Do nothing before connect()."""
        if self._ours is not None:
            await self._ours.close()

    def __getattr__(self, name: str) -> Any:
        if self._ours is not None:
            return getattr(self._ours, name)
        if not hasattr(Client, name):
            raise AttributeError(f"Our client has no attribute {name!r}.")
        raise nats.errors.ConnectionClosedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()


async def connect(servers: Any = "nats://localhost:4222", **options: Any) -> TheirClient:
    """nats.connect()."""
    client = TheirClient()
    await client.connect(servers, **options)
    return client


def _noting(method: Callable[..., None], *names: str) -> Callable[..., None]:
    """The method of a context, which notes the files that it reads."""

    def read(context: ssl.SSLContext, *paths: Any, **more: Any) -> None:
        given = {
            name: str(path) for name, path in zip(names, [*paths, *more.values()], strict=False)
        }
        _files.setdefault(context, {}).update(given)
        method(context, *paths, **more)

    return read


def _pending(subscription: Subscription) -> SimpleNamespace:
    return SimpleNamespace(qsize=lambda: subscription.pending_msgs)


def _replace() -> None:
    # Other words for what is public here.
    Subscription._id = property(lambda self: self.sid)  # type: ignore[attr-defined]
    Subscription._received = property(lambda self: self.delivered)  # type: ignore[attr-defined]
    Subscription._pending_queue = property(_pending)  # type: ignore[attr-defined]
    context: Any = ssl.SSLContext
    context.load_verify_locations = _noting(context.load_verify_locations, "tls_ca")
    context.load_cert_chain = _noting(context.load_cert_chain, "tls_cert", "tls_key")
    theirs: Any = nats
    theirs.connect, theirs.NATS, theirs.aio.client.Client = connect, TheirClient, TheirClient


_replace()
