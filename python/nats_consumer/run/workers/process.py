"""A worker as a process of its own: the same command line in a fresh interpreter."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from django.utils.autoreload import get_child_arguments

from nats_consumer import _native
from nats_consumer.run.notify import VARIABLES
from nats_consumer.run.parent import Child

from .fleet import Look
from .limits import Reason

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
# The letters of /proc for a process that a signal or a debugger has stopped.
_STOPPED = "Tt"


class Processes:
    """Starts the workers of one supervisor, and adds their numbers up."""

    def __init__(self) -> None:
        self.numbers = _native.Fleet()
        self._arguments = get_child_arguments()
        # Workers inherit one end, and see by it when this process is gone.
        self._alive, self._held = os.pipe()
        # Memory stays mapped, so that of ended workers is used again.
        self._free: list[_native.Page] = []

    def start(self, slot: int, reason: Reason, runs_setup: bool) -> "WorkerProcess":
        """Start a worker of this slot. Raises OSError."""
        if not self._free:
            self._free.append(_native.Page())
        page = self._free[-1]
        child = Child(self._alive, page.fd, runs_setup)
        running = subprocess.Popen(
            self._arguments,
            env={**self._environment(), **child.environment},
            pass_fds=child.inherited,
            # Ctrl-C is this process's: it passes it on, once.
            process_group=0,
        )
        self._free.pop()
        self.numbers.adopt(page, slot)
        self.numbers.note_start(reason)
        return WorkerProcess(self, running, page)

    def _environment(self) -> dict[str, str]:
        return {name: each for name, each in os.environ.items() if name not in VARIABLES}

    def retire(self, page: _native.Page) -> None:
        """Keep the counters of a worker that has ended."""
        self.numbers.retire(page)
        self._free.append(page)


class WorkerProcess:
    """A running worker, with the memory that it counts into."""

    def __init__(
        self, processes: Processes, running: subprocess.Popen[bytes], page: _native.Page
    ) -> None:
        self.pid = running.pid
        self._processes = processes
        self._running = running
        self._page = page
        self._folder = Path(f"/proc/{running.pid}")

    def ended(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._running.poll()

    def look(self) -> Look:
        """Look at what it tells."""
        has_begun, unready, settled, silence = self._page.look()
        return Look(has_begun, frozenset(unready), settled, silence)

    def rss(self) -> int:
        """Return its resident memory in bytes, 0 if it is gone."""
        try:
            return int((self._folder / "statm").read_text().split()[1]) * _PAGE_SIZE
        except OSError:
            return 0

    def is_stopped(self) -> bool:
        """Whether SIGSTOP or a debugger has stopped it."""
        with suppress(OSError):
            # Its name stands in parentheses, and may hold anything.
            after_name = (self._folder / "stat").read_text().rpartition(")")[2]
            return after_name.split()[0] in _STOPPED
        return False

    def signal(self, number: int) -> None:
        """Send a signal. A stopped worker goes on, so that it hears that it is to end."""
        self._running.send_signal(number)
        if number in (signal.SIGTERM, signal.SIGINT) and self.is_stopped():
            self._running.send_signal(signal.SIGCONT)

    def note_leaving(self) -> None:
        """Take note that another worker has its place."""
        self._processes.numbers.note_leaving(self._page)

    def release(self) -> None:
        """Keep its counters; it has ended."""
        self._processes.retire(self._page)
