"""A TCP proxy between a client and a nats-server, through which a test does harm."""

import asyncio
import random
import re
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.faults.support.frames import Frames

UP = "to the server"
DOWN = "to the client"
_RESET = struct.pack("ii", 1, 0)  # linger 0: the close is an RST


@dataclass
class Direction:
    """Treatment of the bytes that travel in one direction."""

    passes: asyncio.Event = field(default_factory=asyncio.Event)
    delay: float = 0.0
    jitter: random.Random | None = None
    slice: int | None = None
    drops: re.Pattern[bytes] | None = None
    dropped: list[bytes] = field(default_factory=list)
    bytes_left: int | None = None

    def __post_init__(self) -> None:
        self.passes.set()


@dataclass(eq=False)
class Link:
    """One connection: its side near the client and its side far from it."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter | None = None
    is_forsaken: bool = False

    def reset(self) -> None:
        """End both sides at once."""
        _reset(self.near)
        if self.far is not None:
            _reset(self.far)


class Proxy:
    """Listens on loopback and forwards, frame by frame, to the server at `url`.

    What a test changes applies to all its connections, those that exist and those to come.
    """

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._ways = {UP: Direction(), DOWN: Direction()}
        self._accepts = True
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.connections = 0
        self._server = self._run(asyncio.start_server(self._welcome, "127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """End every connection and the proxy."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    def cut(self) -> None:
        """Reset every connection; new ones are made as before."""
        self._run(self._abort())

    @contextmanager
    def down(self) -> Iterator[None]:
        """Reset every connection, and those that are made meanwhile."""
        self._accepts = False
        self.cut()
        yield
        self._accepts = True

    @contextmanager
    def blackhole(self, *ways: str) -> Iterator[None]:
        """Nothing passes these ways meanwhile and nobody is told; later all of it arrives."""
        for way in ways:
            self._loop.call_soon_threadsafe(self._ways[way].passes.clear)
        yield
        for way in ways:
            self._loop.call_soon_threadsafe(self._ways[way].passes.set)

    @contextmanager
    def delay(self, seconds: float, jitter: random.Random | None = None) -> Iterator[None]:
        """Meanwhile everything takes so much longer, in each direction; on average, with jitter."""
        for way in self._ways.values():
            way.delay, way.jitter = seconds, jitter
        yield
        for way in self._ways.values():
            way.delay, way.jitter = 0.0, None

    @contextmanager
    def sliced(self, count: int) -> Iterator[None]:
        """Send data in pieces of this number of bytes meanwhile, in each direction."""
        for way in self._ways.values():
            way.slice = count
        yield
        for way in self._ways.values():
            way.slice = None

    @contextmanager
    def dropping(self, way: str, pattern: bytes) -> Iterator[list[bytes]]:
        """Frames that match are taken out meanwhile; yields the list of those that were."""
        direction = self._ways[way]
        direction.dropped = []
        direction.drops = re.compile(pattern, re.DOTALL)
        yield direction.dropped
        direction.drops = None

    def cut_after(self, way: str, count: int) -> None:
        """Let `count` bytes more pass this way, up to any place in a frame; then reset all."""
        self._ways[way].bytes_left = count

    def half_open(self) -> None:
        """The server's side of every connection is gone, and the client is not told."""
        self._run(self._forsake(tell=False))

    @property
    def forsaken(self) -> int:
        """How many connections are half open."""
        return sum(link.is_forsaken for link in list(self._links))

    def half_close(self) -> None:
        """As `half_open`, but the client is told that it will not hear any more."""
        self._run(self._forsake(tell=True))

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = Link(writer)
        self._links[link] = self._loop.create_task(self._serve(link, reader))
        # Not at the end of the task: one that is cancelled early never begins.
        self._links[link].add_done_callback(lambda _: self._forget(link))

    async def _serve(self, link: Link, reader: asyncio.StreamReader) -> None:
        try:
            if self._accepts:
                await self._forward(link, reader)
        except (OSError, asyncio.CancelledError):
            pass  # somebody was cut off, or the proxy ends

    def _forget(self, link: Link) -> None:
        link.reset()
        del self._links[link]

    async def _forward(self, link: Link, reader: asyncio.StreamReader) -> None:
        far_reader, link.far = await asyncio.open_connection(
            self._target.hostname, self._target.port
        )
        ways = [
            asyncio.create_task(self._pump(link, UP, reader, link.far)),
            asyncio.create_task(self._pump(link, DOWN, far_reader, link.near)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            _reset(link.far)
        while link.is_forsaken and await reader.read(65536):
            pass

    async def _pump(
        self, link: Link, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        direction, frames = self._ways[way], Frames()
        while received := await reader.read(65536):
            if direction.delay:
                factor = direction.jitter.uniform(0, 2) if direction.jitter else 1
                await asyncio.sleep(direction.delay * factor)
            for frame in frames.feed(received):
                await direction.passes.wait()
                if not _is_dropped(direction, frame):
                    await self._pass(direction, frame, writer)
        # The other way goes on: what one side has sent before it closes has to arrive.
        if not link.is_forsaken:
            writer.write_eof()

    async def _pass(self, direction: Direction, frame: bytes, writer: asyncio.StreamWriter) -> None:
        left, direction.bytes_left = direction.bytes_left, None
        sent = frame if left is None else frame[:left]
        for start in range(0, len(sent), direction.slice or len(sent)):
            writer.write(sent[start : start + (direction.slice or len(sent))])
            await writer.drain()
        if left is None:
            return
        if left > len(frame):
            direction.bytes_left = left - len(frame)
        else:
            await self._abort()

    async def _abort(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _forsake(self, tell: bool) -> None:
        for link in list(self._links):
            if link.far is not None:
                link.is_forsaken = True
                _reset(link.far)
                if tell:
                    link.near.write_eof()

    async def _end(self) -> None:
        self._server.close()
        # Also what is just being accepted.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)


def _is_dropped(direction: Direction, frame: bytes) -> bool:
    is_dropped = direction.drops is not None and direction.drops.search(frame) is not None
    if is_dropped:
        direction.dropped.append(frame)
    return is_dropped


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
