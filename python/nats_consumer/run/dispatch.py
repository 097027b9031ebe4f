"""Calls from the engine: `async def` handlers on the event loop, `def` handlers in threads."""

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import iscoroutinefunction

from nats_consumer import lanes
from nats_consumer.declare.declaration import Declaration
from nats_consumer.declare.options import message_handler
from nats_consumer.declare.retry import retry_policy
from nats_consumer.lanes.database import close_connections, fresh_connections
from nats_consumer.lanes.forked import ChildrenEnd
from nats_consumer.outcomes import ErrorAckBehavior, Outcome, Retry

if TYPE_CHECKING:
    from nats_consumer._native import Consumption, Message

logger = logging.getLogger("nats_consumer.handler")

# What interrupts a thread again and again is not to fill the log.
_INTERRUPTED_SECONDS = 1.0


class Dispatch(ABC):
    """The calls from the engine into one consumer. `handle`, `failed` and `log` are what
    `_native.consume` takes."""

    handle: Callable[["Message"], Any]
    failed: Callable[["Message", Exception], Any]
    interruption: ClassVar[str]
    """What becomes of the handlers that still run when a drain's time is over."""

    def __init__(self, consumer: Declaration) -> None:
        self._name = consumer.consumer_name
        self._behavior = consumer.handle_error_ack_behavior
        policy = retry_policy(consumer)
        self._attempts = policy.max_attempts
        self._final_delay = policy.max_delay
        self._dead_letters = f"{consumer.stream_name}-dlq"
        self._handle_error: Callable[..., Any] | None = getattr(consumer, "handle_error", None)

    @abstractmethod
    def start(self, consumption: "Consumption") -> None:
        """Let the consumer take messages. Call it on the event loop."""

    @abstractmethod
    def end(self) -> None:
        """Let the threads end, when the consumption has ended."""

    @abstractmethod
    def stuck_threads(self) -> list[str]:
        """The names of the threads that still run a handler."""

    def log(self, message: "Message", error: Exception, follows: str) -> None:
        """Report a failed attempt that is not the last one."""
        logger.warning("%s", self._line(message, error, follows))

    def _log_failure(self, message: "Message", error: Exception) -> None:
        # Handed back, it may fail without end: its traceback is shown once.
        is_first = message.attempt <= self._attempts
        line = self._line(message, error, self._what_follows(message))
        logger.error("%s", line, exc_info=error if is_first else None)

    def _line(self, message: "Message", error: BaseException, follows: str) -> str:
        of = "of" if message.attempt <= self._attempts else "after the limit of"
        return (
            f"{self._name}: attempt {message.attempt} {of} {self._attempts} at message "
            f"{message.metadata.sequence.stream} of {message.subject} failed with "
            f"{_described(error)}; {follows}."
        )

    def _what_follows(self, message: "Message") -> str:
        if message.is_acked:
            return "the handler had settled it"
        endings = {
            ErrorAckBehavior.ACK: "it is acknowledged",
            ErrorAckBehavior.NAK: f"it is redelivered in {self._final_delay:g} s",
            ErrorAckBehavior.DEAD_LETTER: f"it is stored in {self._dead_letters}",
            ErrorAckBehavior.TERM: "it is dropped",
            ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR: "it is left to handle_error",
        }
        ending = f"{endings[self._behavior]} (handle_error_ack_behavior={self._behavior.name})"
        is_left = self._behavior is ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
        if self._handle_error is None or is_left:
            return ending
        return f"unless handle_error decides otherwise, {ending}"

    def _final_word(self, message: "Message", answer: object) -> Outcome | None:
        """What becomes of a message after handle_error; None leaves it to the engine, which goes
        by handle_error_ack_behavior."""
        if isinstance(answer, Outcome):
            return answer
        implemented = self._behavior is ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
        if not implemented or message.is_acked:
            return None
        logger.warning(
            "%s: handle_error_ack_behavior leaves settling to handle_error, which settled nothing. "
            "The message is redelivered in %g s. Call message.ack(), nak() or term() there.",
            self._name,
            self._final_delay,
        )
        return Retry(after=self._final_delay)

    def _after_broken_handle_error(self, message: "Message") -> Outcome | None:
        logger.exception("%s: handle_error failed.", self._name)
        # What handle_error was to do is not done: hand the message back rather than let it go.
        if message.is_acked or self._behavior is ErrorAckBehavior.DEAD_LETTER:
            return None
        return Retry(after=self._final_delay)


class LoopDispatch(Dispatch):
    """For `async def handle_message`: the engine steps its coroutine inside asyncio Tasks."""

    interruption = "cancelled and handed back"

    def __init__(self, consumer: Declaration, threads: int) -> None:
        super().__init__(consumer)
        # For what is a plain `def` beside it: handle_error, and the methods of a ConsumerHandler.
        self._threads = lanes.Threads(self._name, threads)
        self._timeout = consumer.handler_timeout
        # The method itself: one coroutine per message, no wrapper around it.
        self.handle = message_handler(consumer)
        self.failed = self._failed

    def start(self, consumption: "Consumption") -> None:
        """Start the engine's Tasks, as many as the options' concurrency."""
        with self._threads.in_use():
            consumption.start_tasks()

    def end(self) -> None:
        """Let the threads end that blocking code ran in."""
        self._threads.end()

    def stuck_threads(self) -> list[str]:
        """The names of the threads that still run blocking code."""
        return self._threads.alive()

    async def _failed(self, message: "Message", error: Exception) -> Outcome | None:
        self._log_failure(message, error)
        answer = None
        try:
            if self._handle_error is not None:
                async with asyncio.timeout(self._timeout):
                    answer = await lanes.call(self._handle_error, message, error, message.attempt)
        except Outcome as outcome:
            return outcome
        except asyncio.CancelledError:
            raise
        except BaseException:
            return self._after_broken_handle_error(message)
        return self._final_word(message, answer)


class ThreadDispatch(Dispatch):
    """For `def handle_message`: its own threads, where it may block and use the ORM."""

    interruption = "handed back; their threads continue until the process ends"

    def __init__(self, consumer: Declaration, threads: int) -> None:
        super().__init__(consumer)
        self._count = threads
        self._handle_message = message_handler(consumer)
        self._has_timeout = consumer.handler_timeout is not None
        self._threads: list[threading.Thread] = []
        self.handle = self._handle
        self.failed = self._failed

    def start(self, consumption: "Consumption") -> None:
        """Start the threads; with a handler_timeout one more, for the handle_error of those whose
        own thread is still busy."""
        work = {str(number): consumption.serve for number in range(1, self._count + 1)}
        if self._has_timeout:
            work["late"] = consumption.serve_late
        loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(
                # Each in a copy of this context: a handler has to know whose run it is in.
                target=copy_context().run,
                args=(self._serve, serve, loop),
                name=f"{self._name}-{suffix}",
                # A handler that never returns must not keep the process from ending.
                daemon=True,
            )
            for suffix, serve in work.items()
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Nothing: each thread ends with the consumption."""

    def stuck_threads(self) -> list[str]:
        """The names of the threads that still run a handler."""
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _serve(self, serve: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        lanes.enter_thread_lane(loop)
        try:
            while not self._has_served(serve):
                time.sleep(_INTERRUPTED_SECONDS)
        finally:
            close_connections()

    def _has_served(self, serve: Callable[[], None]) -> bool:
        """Serve until nothing will come any more. What ends it early, such as memory that ran out
        beside a handler, costs the delivery it held, and not the thread."""
        try:
            serve()
        except BaseException:
            logger.exception("%s: a thread was interrupted and continues.", self._name)
            return False
        return True

    def _handle(self, message: "Message") -> Any:
        with fresh_connections(), ChildrenEnd():
            return lanes.finish(self._handle_message(message))

    def _failed(self, message: "Message", error: Exception) -> Outcome | None:
        self._log_failure(message, error)
        answer = None
        try:
            if self._handle_error is not None:
                with fresh_connections(), ChildrenEnd():
                    answer = lanes.call(self._handle_error, message, error, message.attempt)
        except Outcome as outcome:
            return outcome
        except BaseException:
            return self._after_broken_handle_error(message)
        return self._final_word(message, answer)


def _described(error: BaseException) -> str:
    own = f"{type(error).__name__}: {error}"
    if not isinstance(error, BaseExceptionGroup):
        return own
    return f"{own}: {'; '.join(map(_described, error.exceptions))}"


def dispatch_for(consumer: Declaration, concurrency: int) -> Dispatch:
    """The dispatch that the consumer's handle_message needs, for `concurrency` messages at once.
    Raises ConfigurationError if it has none."""
    if iscoroutinefunction(message_handler(consumer)):
        return LoopDispatch(consumer, concurrency)
    return ThreadDispatch(consumer, concurrency)
