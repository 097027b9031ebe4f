"""A real server, and workers of the engine in a thread, for tests."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import connections
from django.test import override_settings

from nats_consumer.client import get_nats_client
from nats_consumer.connect.args import connect_options
from nats_consumer.connect.resolve import resolve
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.publish.publisher import replaced_by
from nats_consumer.run.keep_running import setup_operations
from nats_consumer.settings import connections as aliases

if TYPE_CHECKING:
    from nats_consumer._native import Publisher
    from nats_consumer.consumer import NatsConsumer

_POLL_SECONDS = 0.01
_CLOSE_SECONDS = 1.0


@contextmanager
def real_server(url: str) -> Iterator[str]:
    """In the body, all connections of the settings are to the server at `url`. Its streams are
    deleted afterwards."""
    publishers: list[Publisher] = []

    def make(using: str) -> "Publisher":
        from nats_consumer import _native

        publishers.append(_native.Publisher(resolve(connect_options(using=using))))
        return publishers[-1]

    args = {"servers": [url]}
    others = dict.fromkeys(aliases()[1:], args)
    own = {**getattr(settings, "NATS_CONSUMER", {}), "connect_args": args, "connections": others}
    with override_settings(NATS_CONSUMER=own), replaced_by(make, held=lambda _: None):
        try:
            yield url
        finally:
            for each in publishers:
                each.close(_CLOSE_SECONDS)
            wait_for(_delete_streams())


async def _delete_streams() -> None:
    async with await get_nats_client() as client:
        js = client.jetstream()
        for info in await js.streams_info():
            await js.delete_stream(str(info.config.name))


class Worker:
    """Consumers that run in a thread, as in `manage.py nats_consumer`, after their setup()."""

    def __init__(self, consumers: "Sequence[type[NatsConsumer]]") -> None:
        self._consumers = [each() for each in consumers]
        self._started: Future[None] = Future()
        self._stopping = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="nats_consumer-test", daemon=True)

    def wait(self, handled: int = 1, *, seconds: float = 10.0) -> None:
        """Wait until the consumers have handled this number of messages, all together, since they
        were started. Raises AssertionError if they have not after `seconds`."""
        deadline = time.monotonic() + seconds
        while (done := sum(each.total_success_count for each in self._consumers)) < handled:
            if time.monotonic() > deadline:
                states = ", ".join(
                    f"{each.consumer_name}: {each.state}" for each in self._consumers
                )
                raise AssertionError(
                    f"{done} of {handled} messages after {seconds:g} s ({states})."
                )
            time.sleep(_POLL_SECONDS)

    def start(self) -> None:
        """Wait until all of them consume. Raises what hinders one."""
        self._thread.start()
        try:
            self._started.result()
        except Exception:
            self._thread.join()
            raise

    def stop(self) -> None:
        """Let running handlers finish, and wait for the thread."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        try:
            for each in self._consumers:
                for operation in await setup_operations(each):
                    await operation.execute()
            # A consumer may rely on a stream that another one sets up.
            for each in self._consumers:
                await each.start()
        except BaseException as error:
            self._started.set_exception(error)
        else:
            self._started.set_result(None)
            await self._stopping.wait()
        for each in self._consumers:
            await each.stop()


@contextmanager
def running(*consumers: "type[NatsConsumer]") -> "Iterator[Worker]":
    """In the body, a worker runs the consumers. Raises RuntimeError in a transaction of the test:
    the worker's threads have other connections, which do not see what it has written."""
    inside = [each.alias for each in connections.all(initialized_only=True) if each.in_atomic_block]
    if inside:
        raise RuntimeError(
            f"The test is in a transaction of {' and '.join(map(repr, inside))}, which the threads "
            "of a worker do not see. Use @pytest.mark.django_db(transaction=True), or the fixture "
            "`nats`, which calls handlers in the thread of the test."
        )
    worker = Worker(consumers)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
