"""The process manager learns that the process is ready, reloads, stops, and goes on: sd_notify of
systemd, in the few lines that it takes."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

_ADDRESS = "NOTIFY_SOCKET"
_WATCHDOG = "WATCHDOG_USEC"
_WATCHDOG_PROCESS = "WATCHDOG_PID"
VARIABLES = (_ADDRESS, _WATCHDOG, _WATCHDOG_PROCESS)
"""The variables that are for this process alone: its workers must not speak for it."""
# systemd suggests half of the time; a third allows for one message that comes late.
_PER_TIMEOUT = 3
# Seconds. When the manager reads nothing, its socket is soon full: that must not stop the worker.
_PATIENCE = 0.5


class Manager:
    """The process manager that started this process; it says nothing to nobody if there is none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self.address = environment.get(_ADDRESS) or None
        self._timeout = environment.get(_WATCHDOG, "")
        self._process = environment.get(_WATCHDOG_PROCESS, "")

    @property
    def watchdog(self) -> float | None:
        """Seconds between two signs of life; None if nobody wants them from this process."""
        is_meant = self._process in ("", str(os.getpid()))
        if self.address is None or not self._timeout.isdecimal() or not is_meant:
            return None
        return int(self._timeout) / 1_000_000 / _PER_TIMEOUT or None

    def ready(self, status: str) -> None:
        """It does its work, or does it again after it reloaded."""
        self._say("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """It reloads; `ready` follows."""
        moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say("RELOADING=1", f"MONOTONIC_USEC={moment}", "STATUS=Replacing what runs.")

    def stopping(self) -> None:
        """It shuts down."""
        self._say("STOPPING=1", "STATUS=Shutting down gracefully.")

    def status(self, status: str) -> None:
        """Say in one line how it is."""
        self._say(f"STATUS={status}")

    def alive(self) -> None:
        """Give a sign of life."""
        self._say("WATCHDOG=1")

    def _say(self, *lines: str) -> None:
        if self.address is None:
            return
        # A name that begins with @ is not a path.
        name = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_PATIENCE)
            sender.sendto("\n".join(lines).encode(), name)
