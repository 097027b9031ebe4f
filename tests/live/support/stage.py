"""A stream of a test's own, and consumers that run on it in the test's process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from nats_consumer import JetstreamPullConsumer, JetstreamPushConsumer, NatsConsumer, _native
from nats_consumer.api import PubAck
from nats_consumer.client import Client
from nats_consumer.connect.args import connect_options
from nats_consumer.declare.options import ConsumerOptions
from nats_consumer.run.dispatch import Dispatch
from nats_consumer.run.keep_running import KeptRunning
from tests.servers import NatsServer
from tests.waiting import becomes_true

SomeConsumer = TypeVar("SomeConsumer", bound=NatsConsumer)

DRAIN_SECONDS = 5.0


class Stage:
    """A stream whose name is the first token of its subjects, a client, and two classes, `Push`
    and `Pull`, to derive consumers of everything in the stream from."""

    def __init__(self, stream: str, client: Client, server: NatsServer) -> None:
        self.stream = stream
        self.client = client
        self.jetstream = client.jetstream()
        self.server = server

        class Push(JetstreamPushConsumer):
            stream_name = stream
            filter_subject = f"{stream}.>"
            initial_retry_delay = 0.05

        class Pull(JetstreamPullConsumer):
            stream_name = stream
            filter_subject = f"{stream}.>"
            initial_retry_delay = 0.05

        self.Push = Push
        self.Pull = Pull

    async def publish(self, *payloads: bytes | str | int, event: str = "created") -> list[PubAck]:
        """Store messages of the subject `<stream>.<event>`, in this order."""
        subject = f"{self.stream}.{event}"
        return [
            await self.jetstream.publish(subject, p if isinstance(p, bytes) else str(p).encode())
            for p in payloads
        ]

    def consumer(self, consumer: type[NatsConsumer]) -> dict[str, Any]:
        """Return the server's state of the consumer's durable."""
        return self.server.consumer(self.stream, consumer.__name__)

    async def everything_is_settled(self, consumer: type[NatsConsumer]) -> None:
        """Wait until everything in the stream is settled, as the server sees it."""
        last = (await self.jetstream.stream_info(self.stream)).state.last_seq

        def info() -> dict[str, Any]:
            return self.consumer(consumer)

        # Not num_pending: for a moment the server does not count what it has just stored.
        await becomes_true(lambda: info()["ack_floor"]["stream_seq"] == last, explain=info)


async def bound(options: ConsumerOptions, dispatch: Dispatch) -> _native.Consumption:
    """Start the engine, as the worker does."""
    return await _native.consume(
        connect_options(),
        options,
        dispatch.handle,
        dispatch.failed,
        dispatch.log,
        dispatch.keeps_time,
        dispatch.in_threads,
    )


@asynccontextmanager
async def running(
    consumer_class: type[SomeConsumer], drain: float = DRAIN_SECONDS
) -> AsyncIterator[SomeConsumer]:
    """The consumer, running under its supervisor in this event loop; drained at the end."""
    supervised = KeptRunning(consumer_class, consume=bound)
    task = asyncio.create_task(supervised.run())
    try:
        await supervised.first_start
        consumer: Any = supervised._consumer  # the one instance, which nobody else gets to see
        yield consumer
        await supervised.drain(drain)
        await task
    finally:
        task.cancel()
