"""Questions to the servers, in bounded time: a page is not held up by a server that is away."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from django.http import Http404

from nats_consumer.client import Client, get_nats_client
from nats_consumer.connect.args import connect_options
from nats_consumer.dead_letters import dead_letters
from nats_consumer.declare import registry
from nats_consumer.exceptions import NatsConsumerError, RequestTimeout
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.settings import connections

if TYPE_CHECKING:
    from nats_consumer._native import DeadLetters

# How long a page waits for a server.
SECONDS = 2.0
# A push durable takes a moment to resume.
_CHANGE_SECONDS = 5.0
_SHORTEST_SECONDS = 0.1

_T = TypeVar("_T")


def streams() -> list[tuple[str, str]]:
    """Connection and name of each stream that the project's consumers read, in the order of the
    connections."""
    order = connections()
    found = {(each.connection, str(each.stream_name)) for each in registry.consumers()}
    return sorted(found, key=lambda each: (order.index(each[0]), each[1]))


def check_stream(using: str, stream: str) -> None:
    """Raises Http404 for a stream that no consumer of the project reads."""
    if (using, stream) not in streams():
        raise Http404("No consumer of this project reads this stream.")


@contextmanager
def open_letters(using: str) -> "Iterator[DeadLetters]":
    """The dead letters of a connection, opened within SECONDS. Raises NatsConsumerError."""
    options = connect_options(using=using)
    limit = max(SECONDS / len(options.servers), _SHORTEST_SECONDS)
    with dead_letters(using, connect_timeout=min(options.connect_timeout, limit)) as letters:
        yield letters


def change(using: str, act: Callable[[Client], Awaitable[_T]]) -> _T:
    """Have `act` change something on the server of a connection. Raises NatsConsumerError."""
    return wait_for(_within(using, act))


async def _within(using: str, act: Callable[[Client], Awaitable[_T]]) -> _T:
    try:
        async with asyncio.timeout(_CHANGE_SECONDS), await get_nats_client(using=using) as client:
            return await act(client)
    except NatsConsumerError:
        raise
    except TimeoutError as error:
        raise RequestTimeout(f"The server did not answer within {_CHANGE_SECONDS:g} s.") from error
