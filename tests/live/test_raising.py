"""Any exception of a handler is a failed attempt at its message, and nothing more."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest

from nats_consumer import ErrorAckBehavior, _native
from tests.live.support.loops import anyio_backend  # noqa: F401 - both loops
from tests.live.support.stage import Stage, running

pytestmark = pytest.mark.anyio


class Unusual(BaseException):
    """An exception that `except Exception` does not catch."""


class Raising(Sequence[str]):
    """Raises an error when it is read."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __len__(self) -> int:
        raise self._error

    def __getitem__(self, index: Any) -> Any:
        raise self._error


@cache
def panic_of_our_extension() -> type[BaseException]:
    """Every extension made with PyO3 has a class of its own for panics, and none has a name. Ours
    is a panic again where Python code raises it to our Rust code, and then another exception."""
    kinds = BaseException.__subclasses__()
    for kind in (each for each in kinds if each.__name__ == "PanicException"):
        error = kind("which one?")
        try:
            _native.Router(Raising(error))
        except BaseException as raised:
            if raised is not error:
                return kind
    raise AssertionError("there is none")


def rust_panic() -> BaseException:
    """Return the exception that Python gets from a panic in Rust code."""
    return panic_of_our_extension()("index out of bounds")


RAISED: list[Callable[[], BaseException]] = [
    lambda: SystemExit(3),
    KeyboardInterrupt,
    GeneratorExit,
    lambda: StopIteration("no result"),
    Unusual,
    MemoryError,
    rust_panic,
]
each_error = pytest.mark.parametrize(
    "error",
    RAISED,
    ids=["sys.exit", "interrupt", "generator_exit", "stop", "base", "memory", "rust_panic"],
)


@pytest.mark.parametrize("lane", ["loop", "thread"])
@each_error
async def test_it_is_retried_and_its_consumer_goes_on(
    stage: Stage, lane: str, error: Callable[[], BaseException]
) -> None:
    seen: list[tuple[bytes, int]] = []
    errors = [error(), error()]

    def handle(message: Any) -> None:
        seen.append((message.data, message.attempt))
        if message.data == b"bad" and message.attempt < 3:
            raise errors.pop()

    class Orders(stage.Pull):
        concurrency = 1
        batch_size = 1

        async def handle_message(self, message: Any) -> None:
            handle(message)

    class OrdersInAThread(stage.Pull):
        concurrency = 1
        batch_size = 1

        def handle_message(self, message: Any) -> None:
            handle(message)

    consumer = {"loop": Orders, "thread": OrdersInAThread}[lane]
    async with running(consumer) as orders:
        await stage.publish("bad", "good")
        await stage.everything_is_settled(consumer)
        assert (orders.total_success_count, orders.total_error_count) == (2, 0)
    assert sorted(seen) == [(b"bad", 1), (b"bad", 2), (b"bad", 3), (b"good", 1)]


@pytest.mark.parametrize("lane", ["loop", "thread"])
@each_error
async def test_after_the_last_attempt_it_is_a_dead_letter_that_names_the_error(
    stage: Stage, lane: str, error: Callable[[], BaseException]
) -> None:
    told: list[str] = []

    class Orders(stage.Pull):
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER

        async def handle_message(self, message: Any) -> None:
            raise error()

        async def handle_error(self, message: Any, error: BaseException, attempt: int) -> None:
            told.append(type(error).__name__)

    class OrdersInAThread(stage.Pull):
        max_retries = 0
        handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER

        def handle_message(self, message: Any) -> None:
            raise error()

        def handle_error(self, message: Any, error: BaseException, attempt: int) -> None:
            told.append(type(error).__name__)

    consumer = {"loop": Orders, "thread": OrdersInAThread}[lane]
    async with running(consumer):
        await stage.publish("bad")
        await stage.everything_is_settled(consumer)
    letter = await stage.jetstream.get_msg(f"{stage.stream}-dlq", 1)
    # From a coroutine, nobody hears of a StopIteration.
    raised = type(error()).__name__
    name = "RuntimeError" if (raised, lane) == ("StopIteration", "loop") else raised
    assert told == [name]
    assert name in letter.headers["Dlq-Error"]


@pytest.mark.parametrize("lane", ["loop", "thread", "other"])
@each_error
async def test_in_handle_error_it_has_the_message_handed_back(
    stage: Stage, lane: str, error: Callable[[], BaseException]
) -> None:
    asked: list[int] = []

    def final_word(attempt: int) -> None:
        asked.append(attempt)
        if attempt == 1:
            raise error()

    class Orders(stage.Pull):
        max_retries = 0
        max_retry_delay = 0.05
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        async def handle_message(self, message: Any) -> None:
            raise ValueError("always")

        async def handle_error(self, message: Any, error: BaseException, attempt: int) -> None:
            final_word(attempt)

    class OrdersInAThread(stage.Pull):
        max_retries = 0
        max_retry_delay = 0.05
        handle_error_ack_behavior = ErrorAckBehavior.ACK

        def handle_message(self, message: Any) -> None:
            raise ValueError("always")

        def handle_error(self, message: Any, error: BaseException, attempt: int) -> None:
            final_word(attempt)

    class OrdersInAThreadAskedOnTheLoop(OrdersInAThread):
        async def handle_error(self, message: Any, error: BaseException, attempt: int) -> None:
            final_word(attempt)

    kinds = {"loop": Orders, "thread": OrdersInAThread, "other": OrdersInAThreadAskedOnTheLoop}
    async with running(kinds[lane]):
        await stage.publish("bad")
        await stage.everything_is_settled(kinds[lane])
    assert asked == [1, 2]
