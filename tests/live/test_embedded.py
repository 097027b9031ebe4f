"""The embedded server, with real processes as its users."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from nats_consumer.connect import embedded
from nats_consumer.connect.embedded import locks, server_url
from nats_consumer.exceptions import ConfigurationError, Unreachable
from tests.waiting import eventually

USER = """
import sys
from pathlib import Path
from nats_consumer.connect.embedded import server_url
print(server_url(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""

FORKING_USER = """
import os, sys
from pathlib import Path
from nats_consumer.connect.embedded import server_url
url = server_url(Path(sys.argv[1]))
if os.fork() == 0:
    print(url, flush=True)
    sys.stdin.read()
"""


class User:
    """A process that uses the embedded server until `leave()`."""

    def __init__(self, store: Path, program: str = USER) -> None:
        command = [sys.executable, "-c", program, str(store)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def url(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate(timeout=20)


@contextmanager
def user_of(store: Path, program: str = USER) -> Iterator[User]:
    user = User(store, program)
    try:
        yield user
    finally:
        user.leave()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "store"
    # No test leaves a server behind.
    eventually(lambda: not is_held(tmp_path / "store" / "server.lock"))


def is_held(lock: Path) -> bool:
    return lock.exists() and locks.is_held(lock)


def state_of(store: Path) -> dict[str, str | int]:
    state: dict[str, str | int] = json.loads((store / "server.json").read_text())
    return state


def pid_of_server(store: Path) -> int:
    return int(state_of(store)["pid"])


def pid_of_supervisor(store: Path) -> int:
    listing = subprocess.check_output(["ps", "-o", "ppid=", "-p", str(pid_of_server(store))])
    return int(listing)


def ask(url: str, subject: str, body: bytes = b"") -> dict[str, object]:
    """Send a request in NATS's own protocol and return the answer."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        connection.sendall(b"CONNECT {}\r\nSUB answer 1\r\n")
        connection.sendall(b"PUB %b answer %d\r\n%b\r\n" % (subject.encode(), len(body), body))
        lines = connection.makefile("rb")
        while not lines.readline().startswith(b"MSG answer"):
            pass
        answer: dict[str, object] = json.loads(lines.readline())
        return answer


def answers(url: str) -> bool:
    try:
        return "memory" in ask(url, "$JS.API.INFO")
    except OSError:
        return False


def test_server_has_jetstream_and_listens_on_loopback_only(store: Path) -> None:
    with user_of(store) as user:
        url = user.url
        assert urlsplit(url).hostname == "127.0.0.1"
        assert answers(url)


def test_second_process_joins_the_server_of_the_first(store: Path) -> None:
    with user_of(store) as first:
        url, pid = first.url, pid_of_server(store)
        with user_of(store) as second:
            assert second.url == url
            assert pid_of_server(store) == pid


def test_two_simultaneous_starters_share_one_server(store: Path) -> None:
    with user_of(store) as first, user_of(store) as second:
        assert first.url == second.url
    assert (store / "server.log").read_text().count("Server is ready") == 1


def test_starter_that_another_one_overtook_joins_its_server(store: Path) -> None:
    with user_of(store) as user:
        url = user.url
        # Its look at the lock came before the supervisor of a process that was killed meanwhile.
        embedded._start_supervisor(store)
        assert embedded._await_server(store) == url


def test_server_outlives_its_starter_and_ends_with_its_last_user(store: Path) -> None:
    with user_of(store) as first:
        url = first.url
        with user_of(store) as second:
            assert second.url == url
            first.leave()
            assert answers(url)
    eventually(lambda: not is_held(store / "server.lock"))
    assert not answers(url)
    eventually(lambda: not is_held(store / "supervisor.lock"))
    assert not (store / "server.json").exists()


def test_server_ends_when_its_only_user_is_killed(store: Path) -> None:
    with user_of(store) as user:
        assert answers(user.url)
        user.process.kill()
        eventually(lambda: not is_held(store / "server.lock"))


def test_killed_server_comes_back_on_the_same_port(store: Path) -> None:
    with user_of(store) as user:
        url, killed = user.url, pid_of_server(store)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: pid_of_server(store) != killed)
        assert answers(url)
        with user_of(store) as second:
            assert second.url == url


def test_state_file_of_a_crash_is_not_believed(store: Path) -> None:
    store.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger_url = f"nats://127.0.0.1:{stranger.getsockname()[1]}"
        state = {"url": stranger_url, "pid": os.getpid(), "name": "embedded-of-yesterday"}
        (store / "server.json").write_text(json.dumps(state))
        with user_of(store) as user:
            url = user.url
            assert url != stranger_url
            assert answers(url)


def test_unreadable_state_file_is_not_believed(store: Path) -> None:
    store.mkdir()
    (store / "server.json").write_text('{"url": 7')
    with user_of(store) as user:
        assert answers(user.url)


def test_server_that_lost_its_supervisor_is_replaced_on_its_port(store: Path) -> None:
    with user_of(store) as first:
        url, orphan = first.url, pid_of_server(store)
        os.kill(pid_of_supervisor(store), signal.SIGKILL)
        eventually(lambda: not is_held(store / "supervisor.lock"))
        with user_of(store) as second:
            assert second.url == url
            assert pid_of_server(store) != orphan
            assert (store / "server.log").read_text().count("Server Exiting") == 1


def test_terminated_supervisor_ends_its_server(store: Path) -> None:
    with user_of(store) as user:
        url = user.url
        os.kill(pid_of_supervisor(store), signal.SIGTERM)
        eventually(lambda: not is_held(store / "server.lock"))
        assert not answers(url)


def test_forked_child_keeps_the_server_that_its_parent_started(store: Path) -> None:
    with user_of(store, FORKING_USER) as user:
        url = user.url
        user.process.wait(timeout=20)
        with user_of(store) as joining:
            assert joining.url == url


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(store: Path) -> None:
    with user_of(store) as user:
        assert answers(user.url)
        assert os.getsid(pid_of_server(store)) != os.getsid(user.process.pid)


def test_streams_are_there_again_in_the_next_run(store: Path) -> None:
    stream = b'{"name":"orders","subjects":["orders.*"],"storage":"file"}'
    with user_of(store) as user:
        assert "error" not in ask(user.url, "$JS.API.STREAM.CREATE.orders", stream)
    with user_of(store) as user:
        assert "error" not in ask(user.url, "$JS.API.STREAM.INFO.orders")


def test_asking_twice_gives_the_same_server(store: Path) -> None:
    program = USER.replace("print(", "server_url(Path(sys.argv[1])); print(")
    with user_of(store, program) as user:
        assert answers(user.url)
    assert (store / "server.log").read_text().count("Server is ready") == 1


def test_server_that_cannot_start_is_an_error_that_names_its_log(store: Path) -> None:
    store.mkdir()
    (store / "jetstream").write_text("a file where JetStream wants its folder")
    with pytest.raises(Unreachable, match=r"did not start: .*server\.log"):
        server_url(store)


def test_store_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file/store"):
        server_url(tmp_path / "file" / "store")
