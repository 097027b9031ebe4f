"""Running consumers until a signal, with an engine that does as it is told."""
# ruff: noqa: ASYNC109 - the parameters are those of the engine

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from pytest_django import Settings

from nats_consumer import JetstreamPullConsumer, operations
from nats_consumer.declare.options import ConsumerOptions
from nats_consumer.exceptions import ConfigurationError, StreamNotFound, Unreachable, WorkerError
from nats_consumer.run import keep_running, stop, worker
from nats_consumer.run.worker import Plan, run
from tests.unit.support.doubles import FakeConsumption
from tests.waiting import becomes_true


class First(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = "orders.*"

    async def handle_message(self, message: Any) -> None: ...


class Second(First):
    def setup(self) -> list[operations.StreamOperation]:
        return [operations.DeleteStream("orders")]


class Blocking(First):
    def handle_message(self, message: Any) -> None: ...


Start = Callable[[str], FakeConsumption]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Start], None]:
    """`engine(start)`: a consumer starts with what `start(name)` returns or raises."""

    def install(start: Start) -> None:
        async def consume(options: ConsumerOptions, dispatch: Any) -> FakeConsumption:
            return start(options.name)

        monkeypatch.setattr(worker, "consume", consume)

    return install


def plan(*consumers: type[JetstreamPullConsumer], **more: Any) -> Plan:
    return Plan(consumers=consumers, shutdown_timeout=7.0, **more)


class Signalling(FakeConsumption):
    """Sends its process a signal as soon as it runs."""

    def start_tasks(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_every_consumer(
    engine: Callable[[Start], None], number: signal.Signals
) -> None:
    running: list[FakeConsumption] = []

    class Last(FakeConsumption):
        def start_tasks(self) -> None:
            os.kill(os.getpid(), number)

    def start(name: str) -> FakeConsumption:
        running.append(Last() if name == "Second" else FakeConsumption())
        return running[-1]

    engine(start)
    before = signal.getsignal(number)
    run(plan(First, Second))
    assert [consumption.drained_for for consumption in running] == [7.0, 7.0]
    assert signal.getsignal(number) is before


def test_the_error_is_raised_and_not_logged_as_well_if_nothing_could_be_started(
    engine: Callable[[Start], None], caplog: pytest.LogCaptureFixture
) -> None:
    def start(name: str) -> FakeConsumption:
        raise Unreachable("no server at 127.0.0.1:1")

    engine(start)
    with pytest.raises(Unreachable, match=r"no server at 127\.0\.0\.1:1"):
        run(plan(First, Second))
    assert "no server" not in caplog.text


def test_different_errors_are_all_named(engine: Callable[[Start], None]) -> None:
    def start(name: str) -> FakeConsumption:
        raise StreamNotFound(f"no stream for {name}")

    engine(start)
    with pytest.raises(WorkerError, match=r"First: no stream for First\nSecond: no stream for"):
        run(plan(First, Second))


def test_an_unexpected_one_of_different_errors_is_logged_with_its_traceback(
    engine: Callable[[Start], None], caplog: pytest.LogCaptureFixture
) -> None:
    def start(name: str) -> FakeConsumption:
        raise StreamNotFound("no stream") if name == "First" else ZeroDivisionError("a bug")

    engine(start)
    with pytest.raises(WorkerError, match="Second: a bug"):
        run(plan(First, Second))
    (record,) = caplog.records
    assert record.getMessage() == "Second: the consumer did not start: a bug"
    assert record.exc_info


def test_one_that_cannot_start_leaves_the_others_running(
    engine: Callable[[Start], None], caplog: pytest.LogCaptureFixture
) -> None:
    running: list[FakeConsumption] = []

    def start(name: str) -> FakeConsumption:
        if name == "First":
            raise StreamNotFound("no stream 'orders'")
        running.append(Signalling())
        return running[-1]

    engine(start)
    run(plan(First, Second))
    assert running[0].drained_for == 7.0
    assert "First: the consumer did not start: no stream 'orders'" in caplog.text


def test_a_signal_ends_a_start_that_hangs_and_logs_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(*_: Any) -> FakeConsumption:
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(worker, "consume", hang)
    monkeypatch.setattr(keep_running, "_START_SECONDS", 0.1)
    run(plan(First))
    gc.collect()  # asyncio logs an exception that nobody fetched when its future goes
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []


def test_a_start_that_fails_after_the_signal_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail_late(*_: Any) -> FakeConsumption:
        os.kill(os.getpid(), signal.SIGTERM)
        await becomes_true(lambda: "Draining" in caplog.text)
        raise Unreachable("no server at 127.0.0.1:1")

    caplog.set_level("INFO", "nats_consumer")
    monkeypatch.setattr(worker, "consume", fail_late)
    run(plan(First))
    gc.collect()
    errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert errors == ["First: the consumer did not start: no server at 127.0.0.1:1"]


class ProcessEnded(KeyboardInterrupt):
    """Raised in the place of os._exit; an event loop lets it pass."""


@pytest.fixture
def exit_code(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes that the process would have ended with at once."""
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise ProcessEnded

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(worker.logs, "flush", lambda: None)
    return codes


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_the_process_at_once(
    engine: Callable[[Start], None],
    exit_code: list[int],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    monkeypatch.setattr(stop, "SAME_SECONDS", 0.0)

    class Slow(FakeConsumption):
        def start_tasks(self) -> None:
            os.kill(os.getpid(), number)

        async def drain(self, timeout: float) -> int:
            os.kill(os.getpid(), number)
            return 0

    engine(lambda name: Slow())
    with pytest.raises(ProcessEnded):
        run(plan(First))
    assert exit_code == [code]


def test_a_signal_to_the_process_and_its_group_is_one_signal(
    engine: Callable[[Start], None], exit_code: list[int]
) -> None:
    class Grouped(FakeConsumption):
        def start_tasks(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        async def drain(self, timeout: float) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return await super().drain(timeout)

    running = Grouped()
    engine(lambda name: running)
    run(plan(First))
    assert running.drained_for == 7.0
    assert exit_code == []


def test_the_log_says_that_a_second_signal_ends_at_once(
    engine: Callable[[Start], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nats_consumer")
    engine(lambda name: Signalling())
    run(plan(First))
    assert "A second signal, at least 1 s after the first, ends the process at once" in caplog.text


def test_a_thread_that_does_not_end_is_named_and_left_behind(
    engine: Callable[[Start], None],
    exit_code: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = threading.Event()

    class Stuck(FakeConsumption):
        def serve(self, rest: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            release.wait(timeout=30)

    monkeypatch.setattr(worker, "_GRACE_SECONDS", 0.1)
    engine(lambda name: Stuck())
    try:
        with pytest.raises(ProcessEnded):
            run(plan(Blocking, overrides=worker.Overrides(concurrency=1)))
    finally:
        release.set()
    assert exit_code == [0]
    assert "still run: Blocking-1" in caplog.text


@pytest.mark.parametrize("call", [asyncio.to_thread, lambda body: sync_to_async(body)()])
def test_a_blocking_call_that_does_not_end_is_left_behind(
    engine: Callable[[Start], None],
    exit_code: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]],
) -> None:
    release = threading.Event()

    class Calling(FakeConsumption):
        def start_tasks(self) -> None:
            self.task = asyncio.create_task(call(self.block))

        def block(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            release.wait(timeout=30)

    def leave(code: int) -> None:
        # What follows in a test is an orderly end, which would wait for the thread.
        exit_code.append(code)
        release.set()

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(worker, "_GRACE_SECONDS", 0.1)
    engine(lambda name: Calling())
    run(plan(First))
    assert exit_code == [0]
    assert "still run" in caplog.text


def test_setup_is_executed_over_one_connection(
    engine: Callable[[Start], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []

    class FakeClient:
        async def __aenter__(self) -> "FakeClient":
            return self

        async def __aexit__(self, *_: object) -> None: ...

        def jetstream(self) -> "FakeClient":
            return self

        async def delete_stream(self, name: str) -> None:
            deleted.append(name)

    async def connect(using: str) -> FakeClient:
        assert using == "default"
        return FakeClient()

    monkeypatch.setattr(worker, "get_nats_client", connect)
    engine(lambda name: Signalling())
    run(plan(Second))
    assert deleted == []
    run(plan(Second, setup=True))
    assert deleted == ["orders"]


def test_every_stream_is_set_up_before_the_first_consumer_starts(
    engine: Callable[[Start], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    async def apply(operations: list[Any], _: str) -> None:
        await asyncio.sleep(0)
        events.append(f"{len(operations)} operations")

    def start(name: str) -> FakeConsumption:
        events.append(name)
        return Signalling() if len(events) == 4 else FakeConsumption()

    monkeypatch.setattr(worker, "_apply", apply)
    engine(start)
    run(plan(First, Second, setup=True))
    assert events[:2] == ["0 operations", "1 operations"]
    assert sorted(events[2:]) == ["First", "Second"]


class MarkedLoop(asyncio.SelectorEventLoop):
    pass


class Policy:
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return MarkedLoop()


def test_the_event_loop_policy_of_the_settings_makes_the_loop(
    engine: Callable[[Start], None], settings: Settings
) -> None:
    settings.NATS_CONSUMER = {"event_loop_policy": f"{__name__}.Policy"}
    loops: list[asyncio.AbstractEventLoop] = []

    def start(name: str) -> FakeConsumption:
        loops.append(asyncio.get_running_loop())
        return Signalling()

    engine(start)
    run(plan(First))
    run(plan(First, event_loop="asyncio"))
    assert [type(loop) is MarkedLoop for loop in loops] == [True, False]


@pytest.mark.parametrize("path", ["uvlop.EventLoopPolicy", "no_dot", f"{__name__}.Missing"])
def test_a_policy_that_cannot_be_imported_is_named(settings: Settings, path: str) -> None:
    settings.NATS_CONSUMER = {"event_loop_policy": path}
    with pytest.raises(ConfigurationError, match=f"event_loop_policy.*{path}"):
        run(plan(First))


def test_on_uvloop_a_signal_drains_as_well(engine: Callable[[Start], None]) -> None:
    loops: list[str] = []
    timers: list[threading.Timer] = []

    class Later(FakeConsumption):
        def start_tasks(self) -> None:
            # From another thread, when the loop has gone to sleep.
            timers.append(threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)))
            timers[0].start()

    def start(name: str) -> FakeConsumption:
        loops.append(type(asyncio.get_running_loop()).__module__)
        return Later()

    engine(start)
    run(plan(First, event_loop="uvloop"))
    assert loops == ["uvloop"]


def test_uvloop_is_named_with_its_extra_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'django-nats-consumer\[uvloop\]'"):
        run(plan(First, event_loop="uvloop"))
