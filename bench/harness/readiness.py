"""The moment when a worker says that all of its consumers are ready."""

import os
import socket
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

from harness.environments import Environment
from harness.match import ContestantFailed

_BYTES = 4096


class Readiness:
    """A process manager for one worker: it listens for READY=1 of sd_notify; a context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._name = f"nats-bench-{os.getpid()}"

    def __enter__(self) -> Self:
        # No path: such a name goes with its socket.
        self._socket.bind(f"\0{self._name}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def told_in(self, environment: Environment) -> Environment:
        """The environment with the address of this manager."""
        return replace(
            environment, variables={**environment.variables, "NOTIFY_SOCKET": f"@{self._name}"}
        )

    def wait(self, seconds: float) -> float:
        """Return when the worker is ready, by the monotonic clock. Raises ContestantFailed."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                said = self._socket.recv(_BYTES)
            except TimeoutError:
                break
            if b"READY=1" in said.splitlines():
                return time.monotonic()
        raise ContestantFailed(f"it was not ready after {seconds:g} s")
