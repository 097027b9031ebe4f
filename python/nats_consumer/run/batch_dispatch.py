"""Calls from the engine with the messages of a batch, and the choice of a consumer's dispatch."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction

from nats_consumer.declare.batches import BatchCall, Item, common_errors, handler_of, is_batch
from nats_consumer.declare.declaration import Declaration
from nats_consumer.declare.middleware import Call, Middleware, middleware
from nats_consumer.declare.once import batch_handled_once
from nats_consumer.lanes.database import FreshConnections
from nats_consumer.lanes.forked import ChildrenEnd
from nats_consumer.lanes.own_thread import leave_thread
from nats_consumer.lanes.pool import BatchTask
from nats_consumer.message import Message

from .attempts import Attempts, limited
from .batches import Batches, BatchTimeoutError, Calls
from .dispatch import Dispatch, LoopDispatch, ThreadDispatch, answered, called

if TYPE_CHECKING:
    from nats_consumer._native import Consumption, Turn


class BatchLoopDispatch(LoopDispatch):
    """Calls of an `async def handle_batch`: a Task for each batch."""

    def __init__(
        self, consumer: Declaration, threads: int, layers: Sequence[Middleware] = ()
    ) -> None:
        super().__init__(consumer, threads, layers)
        self._count = threads
        self._running: set[BatchTask] = set()
        self._lanes: list[asyncio.Task[None]] = []
        self._is_cancelled = False

    def _call_of(self, consumer: Declaration) -> Callable[..., Any]:
        batch = BatchCall(consumer)
        self._ahandle = batch.ahandle
        calls = Calls(item=batch.item, handle=self._handle, failed=self._failed)
        self._batches = Batches(self._name, self._attempts, common_errors(consumer), calls)
        return self._handle_all

    def _within_middleware(self, call: Call) -> Call:
        if self._layers:
            attempts = Attempts(self._consumer, self._judge)
            self._handle_within = attempts.batches_within(self._layers, call)
        else:
            self._handle_within = call
        return self._run

    def _start(self, consumption: "Consumption") -> None:
        self._batches.consumption = consumption
        loop = asyncio.get_running_loop()
        reader = consumption.start_batches()
        loop.add_reader(reader, self._look, consumption)
        with self._threads.in_use():
            serving = [loop.create_task(self._serve(consumption)) for _ in range(self._count)]
        self._lanes = [*serving, loop.create_task(_forget(loop, reader, serving))]

    def _look(self, consumption: "Consumption") -> None:
        self._is_cancelled = consumption.look()
        if self._is_cancelled:
            for task in self._running:
                task.cancel()

    async def _serve(self, consumption: "Consumption") -> None:
        loop = asyncio.get_running_loop()
        while (messages := await consumption.next_batch()) is not None:
            task = BatchTask(self._run(messages), loop=loop, about=(self._name, messages[0]))
            self._running.add(task)
            await asyncio.wait({task})
            self._running.discard(task)

    async def _run(self, messages: Sequence[Message]) -> None:
        try:
            await self._handle_within(messages)
        except asyncio.CancelledError:
            self._batches.abandon(messages, hands_back=self._is_cancelled)
        finally:
            leave_thread()

    async def _handle_all(self, messages: Sequence[Message]) -> None:
        steps = self._batches.handle(messages)
        call = next(steps, None)
        while call is not None:
            answer = await answered(call)
            try:
                call = steps.send(answer)
            except StopIteration:
                return

    async def _handle(self, items: Sequence[Item]) -> Any:
        late = partial(BatchTimeoutError, self._timeout)
        try:
            return await limited(partial(self._ahandle, items), self._timeout, late)
        finally:
            leave_thread()


class BatchThreadDispatch(ThreadDispatch):
    """Calls of a `def handle_batch`, in threads of the process."""

    def __init__(self, consumer: Declaration, layers: Sequence[Middleware] = ()) -> None:
        super().__init__(consumer, layers)
        # The engine watches the time of a batch without a thread of ours.
        self._has_timeout = False

    def _call_of(self, consumer: Declaration) -> Callable[..., Any]:
        self._called: Call = self._handle_all
        batch = BatchCall(consumer)
        calls = Calls(item=batch.item, handle=self._handle_items, failed=self._failed)
        self._batches = Batches(self._name, self._attempts, common_errors(consumer), calls)
        return batch_handled_once(consumer, batch.handle)

    def _wrap(self) -> None:
        attempts = Attempts(self._consumer, self._judge)
        self._handle_within = attempts.batches_within(self._layers, self._handle_all)
        self._called = self._handle_all_within

    def _handle_all_within(self, messages: Sequence[Message]) -> None:
        with FreshConnections(), ChildrenEnd():
            self._handle_within(messages)

    def _start(self, consumption: "Consumption") -> None:
        self._batches.consumption = consumption
        super()._start(consumption)

    def _handle(self, messages: Any) -> None:
        self._called(messages)

    def _handle_all(self, messages: Sequence[Message]) -> None:
        steps = self._batches.handle(messages)
        call = next(steps, None)
        while call is not None:
            try:
                call = steps.send(called(call))
            except StopIteration:
                return

    def _handle_items(self, items: Sequence[Item]) -> Any:
        turn = self._batches.consumption.begin_turn([item.message for item in items])
        try:
            with FreshConnections(), ChildrenEnd():
                endings = self._handle_message(items)
        except BaseException:
            _end(turn, self._timeout)
            raise
        _end(turn, self._timeout)
        return endings


def _end(turn: "Turn | None", limit: float | None) -> None:
    """Raises BatchTimeoutError if the handler has lost its messages meanwhile."""
    if turn is not None and not turn.end():
        raise BatchTimeoutError(limit, is_settled=True)


async def _forget(
    loop: asyncio.AbstractEventLoop, reader: int, serving: Sequence[asyncio.Task[None]]
) -> None:
    try:
        await asyncio.wait(serving)
    finally:
        loop.remove_reader(reader)


def dispatch_for(consumer: Declaration, concurrency: int) -> Dispatch:
    """The dispatch that the consumer's handle_message needs, for `concurrency` messages at once, or
    its handle_batch, for as many batches.
    Raises ConfigurationError if it has none, or if a middleware cannot be around it."""
    has_batches = is_batch(consumer)
    if iscoroutinefunction(handler_of(consumer)):
        on_loop = BatchLoopDispatch if has_batches else LoopDispatch
        return on_loop(consumer, concurrency, middleware())
    in_threads = BatchThreadDispatch if has_batches else ThreadDispatch
    return in_threads(consumer, middleware())
