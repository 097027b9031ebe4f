"""Programs that a fork server runs, in a quarter of the time that Python takes to start them."""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests import fork_server

# The server imports first, on a busy machine.
START_TIMEOUT = 60
# A test may write a module again within a second: Python would take it for the one it compiled.
ALWAYS = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
# What a process reads at its start, which the server has behind it.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_", "OPENSSL_", "SSL_")


class Forked:
    """A program in a process of its own, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        fds: Sequence[int] = (),
    ) -> None:
        self.returncode: int | None = None
        self._report, reported = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        request = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
            "ignored_signals": _ignored_signals(),
            "blocked_signals": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "descriptors": [0, 1, 2, *fds],
        }
        files = [reported.fileno(), nothing, writing, writing, *fds]
        try:
            socket.send_fds(_server().control, [json.dumps(request).encode()], files)
        finally:
            reported.close()
            os.close(writing)
            os.close(nothing)
        self.stdout = os.fdopen(reading, encoding="utf-8")
        assert self._has_report(START_TIMEOUT), "the fork server does not answer"
        pid, [self._handle], _, _ = socket.recv_fds(self._report, 32, 1)
        self.pid = int(pid)

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is None and self._has_report(0):
            self.returncode = int(self._report.recv(32))
            self._report.close()
            os.close(self._handle)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended. Raises `TimeoutExpired` of subprocess."""
        if self.returncode is None and not self._has_report(timeout):
            raise subprocess.TimeoutExpired(sys.executable, timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _has_report(self, timeout: float | None) -> bool:
        poll = select.poll()
        poll.register(self._report, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))


def can_fork(program: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a fork server can run it: a script without options for Python, and an environment
    in which Python would start just as the server did."""
    same = _read_at_start(environment) == _read_at_start(_server_environment())
    return same and program[0].endswith(".py") and hasattr(os, "pidfd_open")


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith(_READ_AT_START)}


@cache
def _server_environment() -> Mapping[str, str]:
    return {**os.environ, **ALWAYS}


def _ignored_signals() -> list[int]:
    # Python ignores these two in each process.
    usual = {signal.SIGPIPE, signal.SIGXFSZ}
    every = signal.valid_signals() - usual
    return [number for number in every if signal.getsignal(number) is signal.SIG_IGN]


@dataclass(frozen=True)
class _ForkServer:
    process: subprocess.Popen[bytes]
    control: socket.socket

    def end(self) -> None:
        self.control.close()
        self.process.communicate()


@cache
def _server() -> _ForkServer:
    """The fork server of this process. It ends when this process does."""
    control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, fork_server.__file__, str(its.fileno())],
            env=_server_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,  # of the kind that programs get: it cannot seek
            pass_fds=[its.fileno()],
        )
    server = _ForkServer(process, control)
    atexit.register(server.end)
    return server
