"""The embedded server: a private nats-server that lives exactly as long as some process uses it.

`server_url(store)` starts the server, or joins the one that runs. A supervisor process, detached
from the terminal, has nats-server as its child: it restarts it when it dies, and ends it when the
last user is gone. What JetStream stored stays in `store` for the next run.

Locks in the store say who is there (flock: the kernel releases them however a process ends):

    start.lock       exclusive: by a process while it starts or joins the server
    users.lock       shared: by each process that uses the server, for the rest of its life;
                     exclusive: by the supervisor, once nobody is left, while it ends the server
    supervisor.lock  exclusive: by the supervisor, for the rest of its life
    server.lock      exclusive: by nats-server itself, which inherits it, for the rest of its life
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nats_consumer.exceptions import ConfigurationError

from .locks import SUPPORTED, is_held, lock_in_time, open_lock, try_exclusive, try_shared, unlock
from .server import server_binary
from .state import (
    POLL_INTERVAL,
    RECOVERY_TIMEOUT,
    START_TIMEOUT,
    STOP_TIMEOUT,
    State,
    not_started,
)

logger = logging.getLogger("nats_consumer.server")

_users_lock_of: dict[Path, int] = {}


def server_url(store: Path) -> str:
    """Return the URL of the embedded server of `store`, which runs until this process ends.

    Starts the server if no process uses it yet, and joins it otherwise. The store, its lock files
    and its log (`server.log`) are in the folder `store`, which is made if it is missing. A server
    that has much to read there is waited for as long as it lives, up to ten minutes. Raises
    ConfigurationError where the server cannot run at all, Unreachable if it did not start.
    """
    if not SUPPORTED:
        raise ConfigurationError(
            "The embedded NATS server needs a POSIX system (file locks by fcntl). On Windows run "
            'nats-server yourself and name it in NATS_CONSUMER["connect_args"]["servers"].'
        )
    server_binary()
    store = _made(store)
    with _start_lock(store):
        _become_user(store)
        if not is_held(store / "supervisor.lock"):
            _start_supervisor(store)
        return _await_server(store)


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
    lock = open_lock(store / "start.lock")
    lock_in_time(
        try_exclusive, lock, 1.1 * RECOVERY_TIMEOUT, store, "another process is still starting it"
    )
    try:
        yield
    finally:
        # A child forked meanwhile shares the lock: closing the descriptor would not end it.
        unlock(lock)
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
    lock = open_lock(path)
    # The supervisor holds the lock exclusively while it ends the server of the users before us.
    lock_in_time(try_shared, lock, 2 * STOP_TIMEOUT, store, "the previous server has not ended yet")
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
            # Its own session, so that the terminal's Ctrl-C does not reach it. The process
            # that is started here forks the supervisor and ends at once: nothing is left to reap.
            launch = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # It finds the package where this process has found it.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,
                timeout=START_TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise not_started(store, f"no supervisor in {START_TIMEOUT:.0f} s") from error
    if launch.returncode != 0:
        raise not_started(store, "its supervisor failed")


def _await_server(store: Path) -> str:
    began = time.monotonic()
    is_slow = False
    while (waited := time.monotonic() - began) < RECOVERY_TIMEOUT:
        state = State.read(store)
        if state is not None and state.answers():
            return state.url
        if not is_held(store / "supervisor.lock"):
            raise not_started(store, "its supervisor gave up")
        if waited > START_TIMEOUT and not is_slow:
            is_slow = True
            logger.warning("The embedded NATS server is still starting: it is reading %s.", store)
        time.sleep(POLL_INTERVAL)
    raise not_started(store, f"no answer in {RECOVERY_TIMEOUT:.0f} s")
