"""`manage.py nats_consumer --setup` as a process of its own, as in production."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

_DRAIN_SECONDS = 35.0
_INTERRUPTED = 130


class Worker:
    """The worker process, from entering to leaving `with`. Its output goes to `log`."""

    def __init__(self, folder: Path, log: Path, keep_open: int) -> None:
        self.log = log
        self._folder = folder
        self._keep_open = keep_open
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def exit_code(self) -> int | None:
        """Return its exit code; None while it runs."""
        return self._process.poll() if self._process else None

    def drain(self) -> int:
        """Ask it to stop as a deploy does, by SIGTERM, and wait until its handlers are done."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_DRAIN_SECONDS)

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "nats_consumer", "--setup"],
                cwd=self._folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[self._keep_open],
                process_group=0,  # Ctrl-C is for run.py, which then drains the worker
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        print("\nStopping: the worker finishes what it has in hand. Ctrl-C again kills it.")
        try:
            self.drain()
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.wait()
            print("The worker was killed. What it had in hand comes again after its ack_wait.")
            if kind is KeyboardInterrupt:
                raise SystemExit(_INTERRUPTED) from None
