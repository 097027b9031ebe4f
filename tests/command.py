"""A Python program in a process of its own, for tests."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.forked import ALWAYS, Forked, can_fork
from tests.waiting import eventually


class Command:
    """A running `python <program>` in `folder`; stderr counts as output. It inherits `fds`.

    `forks` starts it faster, where the start of Python is not what the test is about.
    """

    def __init__(
        self,
        *program: str,
        folder: Path,
        environment: Mapping[str, str],
        fds: Sequence[int] = (),
        forks: bool = False,
    ) -> None:
        self.folder = folder
        self._lines: list[str] = []
        whole = {**os.environ, **ALWAYS, **environment}
        start = Forked if forks and can_fork(program, whole) else _executed
        self._process = start(program, folder, whole, fds)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        """Everything it printed so far."""
        return "".join(self._lines)

    def wait_for(self, text: str, timeout: float = 60) -> str:
        """Wait for a line of output with `text` in it and return the line."""
        return self.wait_for_lines(text, 1, timeout)[0]

    def wait_for_lines(self, text: str, count: int, timeout: float = 60) -> list[str]:
        """Wait for `count` lines of output with `text` in them and return all there are."""

        def find() -> list[str] | None:
            ended = self.has_ended and not self._reader.is_alive()
            found = self.lines_with(text)
            if ended and len(found) < count:
                raise AssertionError(f"it ended without printing {text!r}:\n{self.output}")
            return found if len(found) >= count else None

        return eventually(find, timeout, lambda: f"for a line with {text!r}:\n{self.output}")

    def lines_with(self, text: str) -> list[str]:
        """The lines of output with `text` in them, so far."""
        return [line.rstrip() for line in list(self._lines) if text in line]

    def interrupt(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal, SIGTERM if not told otherwise."""
        self._process.send_signal(number)

    def interrupt_beside(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the signal to a thread that is not the main one, as the kernel may do."""
        others = {int(each.name) for each in Path(f"/proc/{self.pid}/task").iterdir()} - {self.pid}
        assert ctypes.CDLL(None).tgkill(self.pid, others.pop(), number) == 0

    def finish(self, timeout: float = 60) -> int:
        """Wait until it has ended; return its exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout:g} s:\n{self.output}") from None
        self._reader.join(timeout=5)
        return code

    def end(self) -> None:
        """Kill it if it is still there."""
        if not self.has_ended:
            self._process.kill()
        self.finish()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.append(line)


def _executed(
    program: Sequence[str], folder: Path, environment: Mapping[str, str], fds: Sequence[int]
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *program],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pass_fds=fds,
    )
