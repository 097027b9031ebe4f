"""Stand-ins for what the engine hands to Python, for tests without it."""
# ruff: noqa: ASYNC109 - the parameters are those of the engine

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

from nats_consumer.api import PubAck
from nats_consumer.exceptions import ApiError, StreamNotFound, SubjectsOverlap
from nats_consumer.lanes import handler_threads


class FakeMessage:
    """A delivery that remembers how it was settled."""

    def __init__(self, subject: str = "orders.created", *, attempt: int = 1) -> None:
        self.subject = subject
        self.data = b"{}"
        self.attempt = attempt
        self.settled: list[tuple[str, object]] = []
        self.copies: list[str] = []
        self.metadata = SimpleNamespace(
            sequence=SimpleNamespace(stream=7), stream="orders", consumer="billing"
        )

    @property
    def is_acked(self) -> bool:
        return bool(self.settled)

    def ack(self) -> Awaitable[None]:
        return self._settle("ack", None)

    def nak(self, delay: float | None = None) -> Awaitable[None]:
        return self._settle("nak", delay)

    def term(self, reason: str | None = None) -> Awaitable[None]:
        return self._settle("term", reason)

    def copy_to_dlq(self, reason: str) -> Awaitable[None]:
        self.copies.append(reason)
        return _Done()

    def _settle(self, how: str, detail: object) -> Awaitable[None]:
        self.settled.append((how, detail))
        return _Done()


class _Done:
    """Awaitable on any loop or none, like what the engine's messages return."""

    is_done_already = True

    def __await__(self) -> Any:
        return iter(())


class FakeSeat:
    """The place of a thread that works for one consumption."""

    is_spare = False

    def __init__(self, consumption: "FakeConsumption", enter: Callable[[], str]) -> None:
        self._consumption = consumption
        self._enter = enter
        self._context = copy_context()
        self.names: list[str] = []

    def serve(self, rest: Callable[[], None]) -> None:
        self.names = [self._enter()]
        self._context.run(self._consumption.serve, rest)
        self.names = []


class FakeConsumption:
    """A consumption that runs until it is drained or told to fail. When somebody begins to wait
    for its end, it puts itself into the queue `watched`."""

    durable = "durable"

    def __init__(
        self, *, watched: "asyncio.Queue[FakeConsumption] | None" = None, **counters: int
    ) -> None:
        self._watched = watched
        self.is_running = self.is_connected = True
        self.state = "consuming"
        self.tasks_started = self.is_held_up = False
        self.drained_for: float | None = None
        self._counters = {"succeeded": 0, "exhausted": 0, "repairs": 0, **counters}
        self._finished: asyncio.Future[None] | None = None

    def counters(self) -> dict[str, int]:
        return self._counters

    def start_tasks(self) -> None:
        self.tasks_started = True

    def start_threads(self, enter: Callable[[], str], most: int) -> None:
        """Start one thread, which runs serve()."""
        self._seat = FakeSeat(self, enter)
        handler_threads.start(self._seat)

    def busy_threads(self) -> list[str]:
        return self._seat.names

    def serve(self, rest: Callable[[], None]) -> None:
        return

    def hold_up(self, is_held: bool) -> None:
        self.is_held_up = is_held

    def finished(self) -> Awaitable[None]:
        self._finished = asyncio.get_running_loop().create_future()
        if self._watched is not None:
            self._watched.put_nowait(self)
        return self._finished

    def fail(self, error: Exception) -> None:
        assert self._finished is not None
        self._finished.set_exception(error)

    def end(self) -> None:
        assert self._finished is not None
        self._finished.set_result(None)

    async def drain(self, timeout: float) -> int:
        self.drained_for = timeout
        if self._finished is not None and not self._finished.done():
            self.end()
        return 0


class FakeConnection:
    """A JetStream API that keeps streams in a dict and refuses what the server refuses."""

    api_prefix = "$JS.API"

    def __init__(self, **streams: dict[str, Any]) -> None:
        self.streams = {name: {"name": name, **config} for name, config in streams.items()}
        self.published: list[tuple[Any, ...]] = []

    async def api(
        self, subject: str, payload: bytes, timeout: float, prefix: str | None = None
    ) -> bytes:
        _, verb, *name = subject.split(".")
        body = json.loads(payload or b"{}")
        answer: dict[str, Any] = getattr(self, f"_{verb.lower()}")(*name, body)
        return json.dumps(answer).encode()

    async def publish_stream(self, *arguments: Any) -> PubAck:
        self.published.append(arguments)
        return PubAck(stream="orders", seq=1)

    async def close(self) -> None:
        return

    def _info(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name not in self.streams:
            raise StreamNotFound
        state = dict.fromkeys(("messages", "bytes", "first_seq", "last_seq", "consumer_count"), 0)
        created = "2026-01-02T03:04:05.123456789Z"
        return {"config": self.streams[name], "state": state, "created": created}

    def _create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name in self.streams and self.streams[name] != body:
            raise ApiError(400, 10058, "stream name already in use")
        return self._store(name, body)

    def _update(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self._info(name, body)
        return self._store(name, body)

    def _store(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        taken = {s for other, c in self.streams.items() if other != name for s in c["subjects"]}
        if taken & set(body.get("subjects", ())):
            raise SubjectsOverlap
        self.streams[name] = body
        return self._info(name, body)

    def _delete(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        self._info(name, body)
        del self.streams[name]
        return {"success": True}

    def _names(self, body: dict[str, Any]) -> dict[str, Any]:
        names = [n for n, c in self.streams.items() if body.get("subject") in c["subjects"]]
        return {"total": len(names), "streams": names or None}
