"""Starting a consumer, and starting it again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nats_consumer import ConsumerHandler, JetstreamPullConsumer, operations
from nats_consumer.exceptions import (
    ConfigurationError,
    ConsumerGone,
    RequestTimeout,
    ServiceUnavailable,
    StreamNotFound,
)
from nats_consumer.operations import CreateStream, StreamOperation
from nats_consumer.run import keep_running
from nats_consumer.run.keep_running import KeptRunning, setup_operations
from tests.unit.support.doubles import FakeConsumption


class Pulling(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = "orders.*"

    async def handle_message(self, message: Any) -> None: ...


class Engine:
    """`consume` as the supervisor calls it: fails as told, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.consumptions: list[FakeConsumption] = []
        self._watched: asyncio.Queue[FakeConsumption] = asyncio.Queue()

    async def consume(self, *_: Any) -> FakeConsumption:
        if self.errors:
            raise self.errors.pop(0)
        self.consumptions.append(FakeConsumption(watched=self._watched))
        return self.consumptions[-1]

    async def running(self) -> FakeConsumption:
        """Wait until the next consumption is being watched."""
        return await self._watched.get()


def keep_it_running(
    test: Callable[[KeptRunning], Awaitable[None]], engine: Engine, **more: Any
) -> Any:
    """Run `test` beside a consumer that is kept running; drain it at the end."""

    async def run() -> KeptRunning:
        supervised = KeptRunning(more.pop("consumer", Pulling), consume=engine.consume, **more)
        task = asyncio.create_task(supervised.run())
        await test(supervised)
        await supervised.drain(5.0)
        await task
        return supervised

    return asyncio.run(asyncio.wait_for(run(), timeout=10))


def are_about(pauses: list[float], *due: float) -> bool:
    """Whether no pause is more than a fifth off, and yet none is exact."""
    return len(pauses) == len(due) and all(
        0 < abs(pause - each) <= 0.2 * each for pause, each in zip(pauses, due, strict=True)
    )


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between two starts, which take no time."""
    taken: list[float] = []
    pause = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds:
            taken.append(seconds)
        await pause(0)

    monkeypatch.setattr(keep_running.asyncio, "sleep", note)
    return taken


def test_a_start_during_an_election_waits_for_jetstream(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    no_leader = ServiceUnavailable(503, 10008, "JetStream system temporarily unavailable")
    engine = Engine(no_leader, no_leader)

    async def test(supervised: KeptRunning) -> None:
        await supervised.first_start
        assert len(engine.consumptions) == 1

    keep_it_running(test, engine)
    assert are_about(pauses, keep_running._ELECTION_PAUSE, keep_running._ELECTION_PAUSE)
    assert caplog.text.count("waiting up to 15 s for JetStream") == 1


def test_streams_are_set_up_when_jetstream_has_a_leader(pauses: list[float]) -> None:
    errors: list[Exception] = [RequestTimeout("no answer"), ServiceUnavailable(503, 10008, "wait")]

    async def apply(*_: Any) -> None:
        if errors:
            raise errors.pop(0)

    async def test(supervised: KeptRunning) -> None:
        await supervised.set_up()
        await supervised.first_start

    keep_it_running(test, Engine(), apply=apply)
    assert not errors


def test_jetstream_that_stays_away_ends_the_start(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep_running, "_ELECTION_SECONDS", 0.0)
    monkeypatch.setattr(keep_running, "patience", lambda _: 0.0)
    no_leader = ServiceUnavailable(503, 10008, "wait")

    async def test(supervised: KeptRunning) -> None:
        with pytest.raises(ServiceUnavailable):
            await supervised.first_start

    keep_it_running(test, Engine(no_leader))


def test_a_consumer_runs_until_it_is_drained() -> None:
    engine = Engine()

    async def test(supervised: KeptRunning) -> None:
        await supervised.first_start
        await engine.running()

    keep_it_running(test, engine)
    (consumption,) = engine.consumptions
    assert consumption.tasks_started
    assert consumption.drained_for == 5.0


def test_a_consumer_that_is_still_starting_is_drained_and_handles_nothing() -> None:
    binding, bound = asyncio.Event(), asyncio.Event()
    consumption = FakeConsumption()

    async def consume(*_: Any) -> FakeConsumption:
        binding.set()
        await bound.wait()
        return consumption

    async def run() -> None:
        supervised = KeptRunning(Pulling, consume=consume)
        task = asyncio.create_task(supervised.run())
        await binding.wait()
        drain = asyncio.create_task(supervised.drain(5.0))
        await asyncio.sleep(0)
        bound.set()
        await drain
        assert consumption.drained_for == 5.0
        assert not consumption.tasks_started
        await task

    asyncio.run(asyncio.wait_for(run(), timeout=10))


def test_a_drain_gives_up_on_a_start_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_running, "_START_SECONDS", 0.01)
    binding = asyncio.Event()

    async def consume(*_: Any) -> FakeConsumption:
        binding.set()
        return await asyncio.get_running_loop().create_future()

    async def run() -> None:
        supervised = KeptRunning(Pulling, consume=consume)
        task = asyncio.create_task(supervised.run())
        await binding.wait()
        await supervised.drain(5.0)
        task.cancel()

    asyncio.run(asyncio.wait_for(run(), timeout=4))


def test_a_drain_during_a_pause_is_not_followed_by_another_start(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "nats_consumer")
    monkeypatch.setattr("nats_consumer.run.pauses._FIRST", 0.05)
    engine = Engine(StreamNotFound("no stream 'orders'"))

    async def test(supervised: KeptRunning) -> None:
        with pytest.raises(StreamNotFound):
            await supervised.first_start

    keep_it_running(test, engine)
    assert "restarting after" not in caplog.text
    assert engine.consumptions == []


def test_no_new_start_is_told_of_before_the_failure_of_the_first(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nats_consumer")
    engine = Engine(StreamNotFound("no stream 'orders'"))

    async def test(supervised: KeptRunning) -> None:
        with pytest.raises(StreamNotFound):
            await supervised.first_start
        await engine.running()

    keep_it_running(test, engine)
    assert are_about(pauses, 1)
    assert "restarting after" not in caplog.text


def test_a_consumer_that_cannot_start_is_tried_again_with_growing_pauses(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(*[StreamNotFound("no stream 'orders'")] * 7)

    async def test(supervised: KeptRunning) -> None:
        with pytest.raises(StreamNotFound):
            await supervised.first_start
        await engine.running()

    keep_it_running(test, engine)
    assert are_about(pauses, 1, 2, 4, 8, 16, 30, 30)
    assert (
        caplog.text.count("Pulling: the consumer did not start: no stream 'orders'") == 6
    )  # but for the first


def test_a_consumer_that_ends_is_started_again(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine()

    async def test(supervised: KeptRunning) -> None:
        (await engine.running()).fail(ConsumerGone("the durable was deleted"))
        await engine.running()

    keep_it_running(test, engine)
    assert are_about(pauses, 1)
    assert "Pulling: the consumer ended: the durable was deleted" in caplog.text


def test_a_consumption_that_ends_by_itself_is_drained_and_started_again(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine()

    async def test(supervised: KeptRunning) -> None:
        (await engine.running()).end()
        await engine.running()

    keep_it_running(test, engine)
    first, second = engine.consumptions
    assert (first.drained_for, second.drained_for) == (keep_running._LEFT_OVER_SECONDS, 5.0)
    assert are_about(pauses, 1)
    assert "Pulling: the consumer ended without being asked to." in caplog.text


def test_what_has_ended_by_itself_is_not_drained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pausing = asyncio.Event()

    async def pause(_: float) -> None:
        pausing.set()
        await asyncio.Event().wait()

    async def run() -> None:
        engine = Engine()
        supervised = KeptRunning(Pulling, consume=engine.consume)
        task = asyncio.create_task(supervised.run())
        consumption = await engine.running()
        monkeypatch.setattr(keep_running.asyncio, "sleep", pause)
        consumption.end()
        await pausing.wait()
        await supervised.drain(25.0)
        assert consumption.drained_for == keep_running._LEFT_OVER_SECONDS
        task.cancel()

    asyncio.run(asyncio.wait_for(run(), timeout=10))


def test_a_consumer_whose_constructor_fails_is_reported_by_name(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    failures = [ZeroDivisionError("once"), ZeroDivisionError("in __init__")]

    class Fragile(Pulling):
        def __init__(self) -> None:
            if failures:
                raise failures.pop(0)

    engine = Engine()

    async def test(supervised: KeptRunning) -> None:
        with pytest.raises(ZeroDivisionError, match="once"):
            await supervised.first_start
        await engine.running()

    keep_it_running(test, engine, consumer=Fragile)
    assert "Fragile: the consumer did not start: in __init__" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("blocking", "text"),
    [(False, "2. They are cancelled and handed back"), (True, "their threads continue")],
)
def test_what_a_drain_could_not_finish_is_reported_as_it_is(
    blocking: bool, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Blocking(Pulling):
        def handle_message(self, message: Any) -> None: ...

    class Unfinished(FakeConsumption):
        async def drain(self, seconds: float) -> int:
            await super().drain(seconds)
            return 2

    async def run() -> None:
        watched: asyncio.Queue[FakeConsumption] = asyncio.Queue()

        async def consume(*_: Any) -> FakeConsumption:
            return Unfinished(watched=watched)

        supervised = KeptRunning(Blocking if blocking else Pulling, consume=consume)
        task = asyncio.create_task(supervised.run())
        await watched.get()
        await supervised.drain(5.0)
        await task

    asyncio.run(asyncio.wait_for(run(), timeout=10))
    assert "handlers still running after 5 s" in caplog.text
    assert text in caplog.text


def test_setup_is_executed_before_the_first_start_until_it_succeeds(pauses: list[float]) -> None:
    class Setting(Pulling):
        def setup(self) -> StreamOperation:
            return operations.CreateStream(name="orders")

    engine = Engine()
    failures = [ConnectionError("no server")]
    applied: list[list[StreamOperation]] = []

    async def apply(operations: list[StreamOperation], connection: str) -> None:
        assert connection == "default"
        if failures:
            raise failures.pop()
        assert not engine.consumptions
        applied.append(operations)

    async def test(supervised: KeptRunning) -> None:
        with pytest.raises(ConnectionError):
            await supervised.first_start
        (await engine.running()).fail(ConsumerGone())
        await engine.running()

    keep_it_running(test, engine, consumer=Setting, apply=apply)
    assert len(applied) == 1
    assert isinstance(applied[0][0], CreateStream)


CREATE = CreateStream(name="orders")


async def async_setup(self: Any) -> Any:
    return [CREATE]


def yielding_setup(self: Any) -> Any:
    yield CREATE


async def async_yielding_setup(self: Any) -> Any:
    yield CREATE


@pytest.mark.parametrize(
    ("setup", "expected"),
    [
        (None, []),
        (lambda self: None, []),
        (lambda self: [], []),
        (lambda self: CREATE, [CREATE]),
        (lambda self: [CREATE], [CREATE]),
        (lambda self: (CREATE,), [CREATE]),
        (async_setup, [CREATE]),
        (yielding_setup, [CREATE]),
    ],
)
def test_setup_may_be_missing_empty_blocking_or_async(setup: Any, expected: list[Any]) -> None:
    consumer = type("Setting", (Pulling,), {"setup": setup} if setup else {})()
    assert asyncio.run(setup_operations(consumer)) == expected


@pytest.mark.parametrize(
    "setup", [lambda self: ["orders"], lambda self: True, lambda self: 5, async_yielding_setup]
)
def test_a_setup_that_returns_something_else_is_refused(setup: Any) -> None:
    consumer = type("Setting", (Pulling,), {"setup": setup})()
    with pytest.raises(ConfigurationError, match=r"setup\(\) of Setting must return operations"):
        asyncio.run(setup_operations(consumer))


def test_a_setup_that_returns_a_text_is_shown_the_whole_of_it() -> None:
    consumer = type("Setting", (Pulling,), {"setup": lambda self: "orders"})()
    with pytest.raises(ConfigurationError, match="not 'orders'"):
        asyncio.run(setup_operations(consumer))


def test_a_consumer_whose_init_needs_arguments_does_not_start_and_says_so() -> None:
    class Named(Pulling):
        def __init__(self, name: str) -> None:
            super().__init__()

    async def test(supervised: KeptRunning) -> None:
        with pytest.raises(
            ConfigurationError, match=r"Named is created without .* \(self, name: str"
        ):
            await supervised.first_start

    keep_it_running(test, Engine(), consumer=Named)


def test_a_handler_learns_the_retry_delays_of_its_consumer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handlers = []

    class Routing(Pulling):
        initial_retry_delay = 9.0

        def __init__(self) -> None:
            self.handler = ConsumerHandler(["orders.created"])
            handlers.append(self.handler)

    engine = Engine()

    async def test(supervised: KeptRunning) -> None:
        await engine.running()

    keep_it_running(test, engine, consumer=Routing)
    assert handlers[0].retry_policy.delay_after(1) == 9.0
    assert "ConsumerHandler has no handle_created" in caplog.text


def test_subjects_that_will_not_arrive_are_named_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class First(Pulling):
        filter_subject = None
        subjects = ["orders.created", "orders.updated"]

    engine = Engine()

    async def test(supervised: KeptRunning) -> None:
        await engine.running()

    keep_it_running(test, engine, consumer=First)
    assert "These subjects do not arrive: orders.updated" in caplog.text


def _exits_in_init(_: Any) -> None:
    raise SystemExit(3)


async def _exits_in_setup(_: Any) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    "method", [{"__init__": _exits_in_init}, {"setup": _exits_in_setup}], ids=["init", "setup"]
)
def test_a_consumer_that_calls_sys_exit_does_not_start_and_ends_nothing_else(method: Any) -> None:
    async def fails(supervised: KeptRunning) -> None:
        with pytest.raises(ConfigurationError, match=r"It called sys\.exit\(3\)"):
            await supervised.first_start

    async def apply(*_: Any) -> None: ...

    keep_it_running(fails, Engine(), consumer=type("Exits", (Pulling,), method), apply=apply)
