"""Calls from the engine with one message: `async def` handlers on the event loop, `def` handlers in
threads."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from nats_consumer import current, lanes
from nats_consumer.declare.arguments import message_call
from nats_consumer.declare.declaration import Declaration
from nats_consumer.declare.middleware import Call, Middleware
from nats_consumer.declare.once import handled_once
from nats_consumer.lanes import handler_threads, stall
from nats_consumer.lanes.database import FreshConnections
from nats_consumer.lanes.forked import ChildrenEnd
from nats_consumer.lanes.own_thread import leave_thread
from nats_consumer.message import Message
from nats_consumer.outcomes import Outcome
from nats_consumer.settings import max_threads

from .attempts import Attempts, in_time, limited, timeout_error
from .batches import Answer
from .report import Report, word_of

if TYPE_CHECKING:
    from nats_consumer._native import Consumption

logger = logging.getLogger("nats_consumer.consumer")


class Dispatch(Report, ABC):
    """The calls from the engine into one consumer. `handle`, `failed` and `log` are what
    `_native.consume` takes."""

    handle: Callable[[Message], Any]
    failed: Callable[[Message, Exception], Any]
    interruption: ClassVar[str]
    """The text for handlers that still run when a drain's time is over."""
    keeps_time = False
    """Whether it ends handlers on the event loop that run too long, and not the engine."""
    in_threads = False
    """Whether the engine calls handlers in threads, and not on the event loop."""
    consumption: "Consumption"
    """Known from the start on."""

    def __init__(self, consumer: Declaration, layers: Sequence[Middleware]) -> None:
        super().__init__(consumer)
        self._layers = layers
        self._consumer = consumer

    def start(self, consumption: "Consumption") -> None:
        """Let the consumer take messages. Call it on the event loop."""
        self.consumption = consumption
        self._start(consumption)

    @abstractmethod
    def _start(self, consumption: "Consumption") -> None:
        """Let the consumer take messages."""

    @abstractmethod
    def end(self) -> None:
        """Let the threads end, when the consumption has ended."""

    @abstractmethod
    def stuck_threads(self) -> list[str]:
        """The names of the threads that still run a handler."""

    def _exhaust(self, message: Message, error: Any, answer: Outcome | None) -> None:
        """Carry out the final word. What `failed` itself raises is a mistake of this package: then
        there is no answer."""
        if attempt := current.current_attempt():
            attempt.outcome = self._name_of_final(message, answer)
        self.consumption.exhaust(message, error, answer)


class LoopDispatch(Dispatch):
    """Calls of an `async def handle_message`: the engine steps its coroutine in asyncio Tasks."""

    interruption = "cancelled and handed back"

    def __init__(
        self, consumer: Declaration, threads: int, layers: Sequence[Middleware] = ()
    ) -> None:
        super().__init__(consumer, layers)
        # For what is a plain `def` beside it: handle_error, and the methods of a ConsumerHandler.
        self._threads = lanes.Threads(self._name, threads, self._note_held)
        self._timeout = consumer.handler_timeout
        # The method itself, if it takes the message: one coroutine, and no wrapper around it.
        self.handle = self._within_middleware(self._call_of(consumer))
        self.failed = self._failed

    def _call_of(self, consumer: Declaration) -> Callable[..., Any]:
        return message_call(consumer)

    def _within_middleware(self, call: Call) -> Call:
        if not self._layers:
            return call
        self.keeps_time = True
        attempts = Attempts(self._consumer, self._judge)
        return attempts.within(self._layers, in_time(call, self._timeout))

    async def _judge(self, message: Message, error: Any) -> None:
        attempt = current.current_attempt()
        is_late = attempt is not None and attempt.is_late
        if is_late:
            leave_thread()  # It may still do what the handler waited for.
        if not self.consumption.raised(message, error, is_late):
            return
        answer, second = await answered(partial(self._failed, message, error))
        self._exhaust(message, error, answer if second is None else None)

    def _start(self, consumption: "Consumption") -> None:
        with self._threads.in_use():
            consumption.start_tasks()

    def _note_held(self, threads: list[int]) -> Callable[[], None]:
        self.consumption.hold_up(bool(threads))
        return partial(self._tell_of_held, threads)

    def _tell_of_held(self, threads: list[int]) -> None:
        if not self.consumption.is_running:
            return  # Its handlers were cancelled at the end of a drain.
        extra = {"consumer": self._name}
        if threads:
            logger.error("%s", stall.of_calls(self._name, threads), extra=extra)
        else:
            logger.info(
                "%s: a thread is free again, so it takes messages again.", self._name, extra=extra
            )

    def end(self) -> None:
        """Let the threads end that blocking code ran in."""
        self._threads.end()

    def stuck_threads(self) -> list[str]:
        """The names of the threads that still run blocking code."""
        return self._threads.alive()

    async def _failed(self, message: Message, error: Exception) -> Outcome | None:
        self._log_failure(message, error)
        answer = None
        try:
            if self._handle_error is not None:
                call = partial(lanes.call, self._handle_error, message, error, message.attempt)
                late = partial(timeout_error, self._timeout)
                answer = word_of(await limited(call, self._timeout, late))
        except asyncio.CancelledError:
            raise
        except BaseException as raised:
            return self._after_raising_handle_error(message, error, raised)
        return self._final_word(message, error, answer)


class ThreadDispatch(Dispatch):
    """Calls of a `def handle_message`: in threads of the process, where it may block and use the
    ORM."""

    in_threads = True
    interruption = "handed back; their threads continue until the process ends"

    def __init__(self, consumer: Declaration, layers: Sequence[Middleware] = ()) -> None:
        super().__init__(consumer, layers)
        self._call = self._handle_message = self._call_of(consumer)
        self._timeout = consumer.handler_timeout
        self._has_timeout = self._timeout is not None
        self._is_started = False
        self.handle = self._handle
        self.failed = self._failed
        if self._layers:
            self._wrap()

    def _call_of(self, consumer: Declaration) -> Callable[..., Any]:
        return handled_once(consumer, message_call(consumer))

    def _wrap(self) -> None:
        attempts = Attempts(self._consumer, self._judge)
        self._handle_message = attempts.within(self._layers, self._call_in_time)

    def _call_in_time(self, message: Message) -> Any:
        answer = lanes.finish(self._call(message))
        if self._has_timeout and not self.consumption.handler_ended(message):
            raise timeout_error(self._timeout)
        return answer

    def _judge(self, message: Message, error: Any) -> None:
        if self._has_timeout and not self.consumption.handler_ended(message):
            if attempt := current.current_attempt():
                attempt.is_judged_elsewhere = True
        elif self.consumption.raised(message, error):
            answer, second = called(partial(self._failed, message, error))
            self._exhaust(message, error, answer if second is None else None)

    def _start(self, consumption: "Consumption") -> None:
        enter = handler_threads.enter(self._name, asyncio.get_running_loop())
        consumption.start_threads(enter, max_threads())
        self._is_started = True

    def end(self) -> None:
        """Do nothing: the threads are those of the process."""

    def stuck_threads(self) -> list[str]:
        """The names of the threads that still run a handler."""
        return self.consumption.busy_threads() if self._is_started else []

    def _handle(self, message: Message) -> Any:
        with FreshConnections(), ChildrenEnd():
            return lanes.finish(self._handle_message(message))

    def _failed(self, message: Message, error: Exception) -> Outcome | None:
        self._log_failure(message, error)
        answer = None
        try:
            if self._handle_error is not None:
                with FreshConnections(), ChildrenEnd():
                    said = lanes.call(self._handle_error, message, error, message.attempt)
                answer = word_of(said)
        except BaseException as raised:
            return self._after_raising_handle_error(message, error, raised)
        return self._final_word(message, error, answer)


def called(call: Callable[[], Any]) -> Answer:
    """Call a `def`; return what it returned, or raised."""
    try:
        return call(), None
    except BaseException as error:
        return None, error


async def answered(call: Callable[[], Any]) -> Answer:
    """called() for an `async def`. The end of the task itself is raised."""
    try:
        return await call(), None
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        return None, error
