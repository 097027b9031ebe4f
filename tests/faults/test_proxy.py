"""The proxy does what a test asks for, and nothing else."""

import asyncio
import re
import socket
from collections.abc import Iterator
from itertools import pairwise

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.support.frames import Frames
from tests.faults.support.proxy import DOWN, UP, Proxy
from tests.servers import NatsServer
from tests.waiting import becomes_true, eventually

WIRE = b"PING\r\nPUB a.b 5\r\nhel\r\n\r\nHPUB a b 14 16\r\nNATS/1.0\r\n\r\n\r\nhi\r\n+OK\r\n"
FRAMES = [b"PING\r\n", b"PUB a.b 5\r\nhel\r\n\r\n", WIRE[24:-5], b"+OK\r\n"]


@given(st.lists(st.integers(0, len(WIRE)), max_size=8))
def test_frames_are_whole_however_they_arrive(cuts: list[int]) -> None:
    frames, found, edges = Frames(), [], sorted({0, *cuts, len(WIRE)})
    for start, end in pairwise(edges):
        found += frames.feed(WIRE[start:end])
    assert found == FRAMES


@pytest.fixture
def proxy(nats_server: NatsServer) -> Iterator[Proxy]:
    proxy = Proxy(nats_server.url)
    yield proxy
    proxy.close()


@pytest.fixture
def connection(proxy: Proxy) -> Iterator[socket.socket]:
    """A client that said who it is."""
    port = int(proxy.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        _read(connection, rb"INFO .*\r\n")
        connection.sendall(b'CONNECT {"verbose":false}\r\nSUB hello 1\r\nPING\r\n')
        _read(connection, rb"PONG\r\n")
        yield connection


def _read(connection: socket.socket, until: bytes) -> bytes:
    received = b""
    while not re.search(until, received):
        part = connection.recv(4096)
        if not part:
            raise ConnectionResetError
        received += part
    return received


def test_what_nobody_harms_passes(connection: socket.socket) -> None:
    connection.sendall(b"PUB hello 2\r\nhi\r\n")
    assert b"MSG hello 1 2\r\nhi\r\n" in _read(connection, rb"hi\r\n")


def test_what_is_sliced_arrives_whole(connection: socket.socket, proxy: Proxy) -> None:
    with proxy.sliced(1):
        connection.sendall(b"PUB hello 2\r\nhi\r\n")
        assert _read(connection, rb"hi\r\n") == b"MSG hello 1 2\r\nhi\r\n"


def test_a_cut_resets_and_the_next_connection_works(proxy: Proxy) -> None:
    async def survive() -> bytes:
        client = await nats.connect(proxy.url, reconnect_time_wait=0.01)
        subscription = await client.subscribe("again")
        await client.flush()
        proxy.cut()
        await becomes_true(lambda: client.stats["reconnects"] == 1 and client.is_connected)
        await client.publish("again", b"yes")
        message = await subscription.next_msg(timeout=5)
        await client.close()
        return bytes(message.data)

    assert asyncio.run(survive()) == b"yes"
    assert proxy.connections == 2


def test_a_proxy_that_is_down_resets_who_connects(proxy: Proxy) -> None:
    port = int(proxy.url.rpartition(":")[2])
    with (
        proxy.down(),
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
    ):
        _read(connection, rb"INFO")


@pytest.mark.parametrize("way", [UP, DOWN])
def test_a_blackhole_holds_back_one_way_until_it_is_healed(
    proxy: Proxy, connection: socket.socket, way: str
) -> None:
    connection.settimeout(0.3)
    with proxy.blackhole(way):
        connection.sendall(b"PUB hello 2\r\nhi\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(4096)
    connection.settimeout(5)
    assert _read(connection, rb"hi\r\n")


def test_frames_that_match_are_dropped_and_kept_for_the_test(
    proxy: Proxy, connection: socket.socket
) -> None:
    with proxy.dropping(UP, rb"^PUB hello .*secret") as dropped:
        connection.sendall(b"PUB hello 6\r\nsecret\r\nPUB hello 4\r\nopen\r\n")
        assert b"secret" not in _read(connection, rb"open\r\n")
        assert dropped == [b"PUB hello 6\r\nsecret\r\n"]


def test_a_connection_is_cut_within_a_frame(proxy: Proxy, connection: socket.socket) -> None:
    proxy.cut_after(DOWN, 10)
    connection.sendall(b"PUB hello 2\r\nhi\r\n")
    with pytest.raises(ConnectionResetError):
        _read(connection, rb"hi\r\n")


def test_half_open_is_a_connection_that_only_the_client_believes_in(
    proxy: Proxy, connection: socket.socket, nats_server: NatsServer
) -> None:
    before = nats_server.connections()
    proxy.half_open()
    eventually(lambda: nats_server.connections() < before)
    connection.settimeout(0.3)
    connection.sendall(b"PING\r\n")
    with pytest.raises(TimeoutError):
        connection.recv(4096)


def test_half_closed_is_an_end_that_the_client_hears(
    proxy: Proxy, connection: socket.socket
) -> None:
    proxy.half_close()
    assert connection.recv(4096) == b""
