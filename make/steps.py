"""Steps: commands in lanes. Lanes run at the same time, the steps of one lane one after another.

The output of a step is printed when the step ends, so that steps do not mix; meanwhile a line
says now and then what runs. A failed step stops no other step: one run tells everything that is
wrong. A command that cannot do its work on this machine says why and exits with `NOT_RUN`.
"""

import os
import queue
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_RUN = 75  # sysexits.h: EX_TEMPFAIL
_INTERRUPTED = 130
_PROGRESS_SECONDS = 15.0

_HEADS = {"passed": "passed", "not run": "not run", "failed": "FAILED"}

_CLOSING_LINES = [
    # cargo nextest: "Summary [ 1.2s] 9 tests run: 8 passed, 1 failed, 2 skipped"
    re.compile(r"^\s*Summary \[.*tests? run: (?P<counts>.*)$"),
    # cargo test: "test result: ok. 8 passed; 0 failed; 0 ignored; …"
    re.compile(r"^test result: \w+\. (?P<counts>.*)$"),
    # pytest: "==== 1 failed, 8 passed, 1 skipped in 0.12s ===="
    re.compile(r"^=+ (?P<counts>(?:\d+ \w+(?:, )?)+) in [\d.]+s.*=+$"),
]
_COUNT = re.compile(r"(\d+) ([a-z]+)(?: \(.*?\))?")
_MEANING = {
    "passed": "passed",
    "xfailed": "skipped",
    "failed": "failed",
    "error": "failed",
    "errors": "failed",
    "xpassed": "failed",
    "timed": "failed",
    "skipped": "skipped",
    "ignored": "skipped",
}


@dataclass
class TestCount:
    """How many tests passed, failed and were skipped."""

    __test__ = False  # pytest: no test class

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, line: str) -> None:
        """Count the tests of `line` if it is a test runner's closing line."""
        for pattern in _CLOSING_LINES:
            if found := pattern.match(_plain(line)):
                for number, word in _COUNT.findall(found["counts"]):
                    if meaning := _MEANING.get(word):
                        setattr(self, meaning, getattr(self, meaning) + int(number))
                return

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


@dataclass
class Step:
    """A named command. It waits for the step `after` of another lane, and does not run if that one
    failed. A step that is `alone` waits until nothing else is left: other work would disturb it.

    `minutes` is for what hangs, not for what is slow: a busy machine may take its time. Tests have
    limits of their own.
    """

    name: str
    command: Sequence[str | Path]
    after: str | None = None
    alone: bool = False
    minutes: float = 60
    environment: Mapping[str, str | Path] = field(default_factory=dict)


Lane = Sequence[Step]


def run_all(verb: str, lanes: Sequence[Lane], notes: Sequence[str] = ()) -> int:
    """Run every lane, print the notes and a summary of the steps, and return the exit code: 0, 1 if
    a step failed, 130 if Ctrl-C or SIGTERM ended it."""
    # Steps are sessions of their own: a signal that ends this process does not reach them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = _Run(lanes)
    try:
        run.wait()
    except KeyboardInterrupt:
        running = " and ".join(run.stop())
        done = _steps(len(run.results))
        print(f"\nmake {verb}: stopped during {running}, after {done}", flush=True)
        return _INTERRUPTED
    print()
    for note in notes:
        print(note)
    if run.count != TestCount():
        print(run.count)
    print(_sum(verb, run.results), flush=True)
    return 1 if "failed" in run.results.values() else 0


class _Run:
    """The lanes under way: what has ended, and what runs."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.results: dict[str, str] = {}
        self.count = TestCount()
        self._lanes = [list(lane) for lane in lanes]
        self._processes: dict[str, _Process] = {}
        self._ended: queue.Queue[_Process] = queue.Queue()

    def wait(self) -> None:
        """Run all steps to their ends."""
        self._start_what_can()
        while self._processes:
            try:
                self._take(self._ended.get(timeout=_PROGRESS_SECONDS))
            except queue.Empty:
                self._report()
        assert not any(self._lanes), "a step waits for one that does not exist"

    def stop(self) -> list[str]:
        """End what runs, and return its names."""
        for process in self._processes.values():
            process.end()
            process.output()
        return list(self._processes)

    def _start_what_can(self) -> None:
        busy = {id(process.lane) for process in self._processes.values()}
        for lane in self._lanes:
            while lane and id(lane) not in busy:
                if lane[0].alone and self._has_more_than(lane):
                    break
                if (after := lane[0].after) is not None and after not in self.results:
                    break
                step = lane.pop(0)
                if after is not None and self.results[after] != "passed":
                    self._skip(step)
                    continue
                self._processes[step.name] = _Process(step, lane, self._ended)
                busy.add(id(lane))

    def _has_more_than(self, lane: list[Step]) -> bool:
        others = (other for other in self._lanes if other is not lane)
        return bool(self._processes) or any(other and not other[0].alone for other in others)

    def _skip(self, step: Step) -> None:
        print(f"--- {step.name}: not run, because {step.after} did not pass", flush=True)
        self.results[step.name] = "not run"

    def _take(self, process: "_Process") -> None:
        step = process.step
        del self._processes[step.name]
        command = shlex.join(_shortened(step.command))
        print(f"\n--- {step.name}: {command}")
        for line in process.output():
            print(line, end="")
            self.count.add(line)
        self.results[step.name] = process.result
        print(f"--- {step.name}: {process.result}, {process.seconds:.1f} s", flush=True)
        self._start_what_can()

    def _report(self) -> None:
        running = [process.progress() for process in self._processes.values()]
        print("... " + "; ".join(running), flush=True)


class _Process:
    """A running step. Its end is put into `ended`; then `result`, `seconds` and `output` hold."""

    def __init__(self, step: Step, lane: list[Step], ended: "queue.Queue[_Process]") -> None:
        self.step = step
        self.lane = lane
        self.result = ""
        self.seconds = 0.0
        self._ended = ended
        self._started = time.monotonic()
        # A file, not a pipe: a process that outlives the command may hold it open.
        self._output = tempfile.TemporaryFile(  # noqa: SIM115 - `output` closes it
            "w+", encoding="utf-8", errors="replace"
        )
        self._process = subprocess.Popen(
            [str(part) for part in step.command],
            cwd=ROOT,
            env={**os.environ, **{key: str(value) for key, value in step.environment.items()}},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._wait, daemon=True).start()

    def output(self) -> list[str]:
        """Return all that the step printed. Closes the file: call it once, after the end."""
        self._output.seek(0)
        with self._output:
            return self._output.readlines()

    def progress(self) -> str:
        """The name, the time so far and the last line of output."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{self.step.name} {minutes}:{seconds:02} {self._last_line()}".rstrip()

    def end(self) -> None:
        """End what is left of the step: all of it, or the processes that it left running."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(timeout=10)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def _wait(self) -> None:
        try:
            self.result = _result(self._process.wait(timeout=self.step.minutes * 60))
        except subprocess.TimeoutExpired:
            self._output.write(f"{self.step.name}: ended after {self.step.minutes:.2g} minutes\n")
            self._output.flush()
            self.result = "failed"
        self.end()
        self.seconds = time.monotonic() - self._started
        self._ended.put(self)

    def _last_line(self) -> str:
        size = os.fstat(self._output.fileno()).st_size
        end = os.pread(self._output.fileno(), 400, max(0, size - 400)).decode(errors="replace")
        lines = [line.strip() for line in _plain(end).splitlines() if line.strip()]
        return lines[-1][-60:] if lines else ""


def _sum(verb: str, results: Mapping[str, str]) -> str:
    """A line for each result, and one that counts them."""
    names = {head: [name for name, result in results.items() if result == head] for head in _HEADS}
    lines = [f"{_HEADS[head]}: {', '.join(these)}" for head, these in names.items() if these]
    counts = f"{_steps(len(names['passed']))} passed, {len(names['failed'])} failed"
    if names["not run"]:
        counts += f", {len(names['not run'])} not run"
    return "\n".join([*lines, f"make {verb}: {counts}"])


def _steps(count: int) -> str:
    return f"{count} {'step' if count == 1 else 'steps'}"


def _result(code: int) -> str:
    return {0: "passed", NOT_RUN: "not run"}.get(code, "failed")


def _plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line.rstrip("\n"))


def _shortened(command: Sequence[str | Path]) -> list[str]:
    return [str(part).removeprefix(f"{ROOT}/") for part in command]
