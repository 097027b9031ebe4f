"""Workers under a supervisor, as a process manager sees them."""

import os
import signal
from collections.abc import Set
from pathlib import Path

from tests.command import Command
from tests.live.support.probes import Probes
from tests.live.support.project import Project
from tests.waiting import eventually

HTTP = ("--http", "127.0.0.1:0")


class Supervised:
    """`manage.py nats_consumer --workers <count> <arguments>`, once all are ready."""

    def __init__(self, project: Project, count: int, *arguments: str) -> None:
        self.project = project
        self.command: Command = project.consume("--workers", str(count), *arguments, *HTTP)
        self.command.wait_for(f"All {count} workers are ready")
        self.probes = Probes(self.command)

    def pids(self) -> set[int]:
        """The processes of the workers that count."""
        families = self.probes.samples().series()
        infos = [dict(labels) for name, labels in families if name == "nats_consumer_worker_info"]
        return {int(info["pid"]) for info in infos}

    def pid(self) -> int:
        """The process of one worker."""
        return min(self.pids())

    def starts(self, reason: str) -> int:
        """How often a worker was started for this reason."""
        return int(self.probes.samples().value("worker_starts_total", reason=reason) or 0)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self.command.interrupt(number)

    def become_ready(self, *, without: Set[int] = frozenset()) -> None:
        """Wait until all are ready, and none of these processes is one of them."""

        def are_others() -> bool:
            samples, pids = self.probes.samples(), self.pids()
            are_ready = samples.value("workers") == samples.value("workers_wanted") == len(pids)
            return are_ready and not pids & without

        eventually(are_others, explain=lambda: self.command.output)

    def finish(self) -> None:
        """Drain; the status is 0, and no process is left."""
        pids = self.pids()
        self.command.interrupt()
        assert self.command.finish() == 0, self.command.output
        assert not any(is_alive(pid) for pid in pids)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a worker."""
    os.kill(pid, number)
