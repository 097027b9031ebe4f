"""CPU time, memory, threads and files of processes, from /proc."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.3
_PARENT, _SESSION, _USER, _SYSTEM = (
    1,
    3,
    11,
    12,
)  # fields of /proc/<pid>/stat after the command's name


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time of these processes, all threads, user and system; 10 ms is its resolution."""
    fields = (_stat(pid) for pid in pids)
    return sum(int(each[_USER]) + int(each[_SYSTEM]) for each in fields if each) / _TICKS


def busy_seconds() -> float:
    """CPU time of the whole machine that was not idle, what other guests took included."""
    user, nice, system, _idle, _waiting, irq, softirq, stolen, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + stolen) / _TICKS


def peak_rss_mib(pids: Sequence[int]) -> float:
    """The largest resident size that these processes had, added up, in MiB."""
    return sum(_number(pid, "VmHWM") for pid in pids) / 1024


def rss_mib(pids: Sequence[int]) -> float:
    """The resident size of these processes, added up, in MiB."""
    return sum(_number(pid, "VmRSS") for pid in pids) / 1024


def threads(pids: Sequence[int]) -> int:
    """How many threads these processes have."""
    return sum(_number(pid, "Threads") for pid in pids)


def open_files(pids: Sequence[int]) -> int:
    """How many files and sockets these processes have open."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def session(leader: int) -> list[int]:
    """The processes of the session that `leader` leads: itself and what it started."""
    return _those_with(_SESSION, leader)


def family(parent: int) -> list[int]:
    """A process and its children."""
    return [parent, *_those_with(_PARENT, parent)]


def _those_with(field: int, value: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if (stat := _stat(pid)) and int(stat[field]) == value]


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def _number(pid: int, field: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if field in line), 0)


class Noise:
    """Load of the rest of the machine from now on, beside these processes and this one."""

    def __init__(self, pids: Callable[[], Sequence[int]] = list) -> None:
        """`pids()` are the processes that do not count, those started meanwhile included."""
        self._pids = pids
        self._began, self._foreign = time.monotonic(), self._foreign_seconds()

    def cores(self) -> float:
        """How many cores the others have kept busy since."""
        seconds = self._foreign_seconds() - self._foreign
        return max(0.0, seconds / (time.monotonic() - self._began))

    def _foreign_seconds(self) -> float:
        own = os.times()
        return busy_seconds() - cpu_seconds(self._pids()) - sum(own[:4])


def wait_for_quiet(cores: float, seconds: float) -> None:
    """Return when others keep fewer cores busy than that, or at the time limit in seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        noise = Noise()
        time.sleep(_SAMPLE_SECONDS)
        if noise.cores() < cores:
            return
