"""One consumer that the project's own code runs, without the command."""

import asyncio
from contextlib import ExitStack
from contextvars import ContextVar

from nats_consumer import _native
from nats_consumer.connect.log import LogPump
from nats_consumer.declare.options import Overrides
from nats_consumer.settings import shutdown_timeout

from .consume import consume
from .keep_running import KeptRunning, Runnable

# What the handlers of a run inherit, so that one of them can stop it without waiting for itself.
_around: ContextVar["OwnRun | None"] = ContextVar("_around", default=None)


class OwnRun:
    """From start to stop, on the running event loop, of one instance."""

    def __init__(self, consumer: Runnable, overrides: Overrides) -> None:
        self._kept_running = KeptRunning(
            type(consumer), consume=consume, overrides=overrides, make=lambda: consumer
        )
        self._stopping = asyncio.Event()
        around = _around.set(self)
        try:
            self._life = asyncio.create_task(self._live(), name=self._kept_running.name)
        finally:
            _around.reset(around)

    @property
    def is_over(self) -> bool:
        """Whether it has been stopped, and nothing of it runs any more."""
        return self._life.done()

    async def started(self) -> None:
        """Wait until it consumes. Raises what hinders the first start; then nothing runs on."""
        try:
            await self._kept_running.first_start
        except BaseException:
            await self.stop()
            raise

    async def ended(self) -> None:
        """Wait until it is stopped."""
        await asyncio.shield(self._life)

    async def stop(self) -> None:
        """Drain, and wait for it, except in a handler that runs here: it would wait for itself."""
        self._stopping.set()
        if _around.get() is not self:
            await self.ended()

    async def _live(self) -> None:
        with ExitStack() as engine_logs:
            engine_logs.enter_context(LogPump(_native.take_logs, _native.wake_logs))
            running = asyncio.create_task(self._kept_running.run())
            try:
                await self._stopping.wait()
                await self._kept_running.drain(shutdown_timeout())
            finally:
                running.cancel()
                await asyncio.wait([running])
                # In a thread, because it waits for the pump's own.
                await asyncio.to_thread(engine_logs.close)
