"""The supervisor: the parent process of the embedded server, ended by its last user."""

import logging
import os
import signal
import sys
import time
from pathlib import Path

from nats_consumer.exceptions import Unreachable

from .locks import is_held, open_lock, try_exclusive, wait_until
from .server import Server
from .state import FREE_PORT, STOP_TIMEOUT, State, not_started

logger = logging.getLogger("nats_consumer.server")

_WATCH_INTERVAL = 0.2


def main(store: Path) -> int:
    """Become the supervisor of the embedded server of `store`; the process that called returns."""
    logging.basicConfig(level=logging.INFO, format="[%(process)d] %(asctime)s [SUP] %(message)s")
    users = open_lock(store / "users.lock")
    supervisor = open_lock(store / "supervisor.lock")
    if not try_exclusive(supervisor):
        # Started by a process that was killed before it saw it.
        logger.info("Another supervisor is running for %s.", store)
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
        # In this order: the next holder of users.lock must not find a supervisor that is ending.
        os.close(supervisor)
        os.close(users)
    return 0


def _supervise(store: Path, users: int) -> None:
    previous = State.read(store)
    _end_orphan(store, previous)
    server = Server(store)
    try:
        server.start(previous.port if previous else FREE_PORT)
        while not try_exclusive(users):
            if server.has_ended():
                logger.warning("nats-server ended unexpectedly; restarting it.")
                server.start(server.port)
            time.sleep(_WATCH_INTERVAL)
        logger.info("The last user is gone; ending nats-server.")
    finally:
        server.end()
        (store / "server.json").unlink(missing_ok=True)


def _end_orphan(store: Path, previous: State | None) -> None:
    """End the server whose supervisor was killed: two servers on one store would destroy it."""
    path = store / "server.lock"
    for number in (signal.SIGTERM, signal.SIGKILL):
        if is_held(path) and previous is not None and previous.answers():
            logger.warning("Ending nats-server %d, which lost its supervisor.", previous.pid)
            os.kill(previous.pid, number)
        if wait_until(lambda: not is_held(path), STOP_TIMEOUT):
            return
    raise not_started(store, "another nats-server uses the store and could not be ended")
