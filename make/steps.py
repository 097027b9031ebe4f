"""Steps: commands that run one after another, live and bounded, and are summed up at the end.

A failed step stops none of the others: one run tells everything that is wrong.
A command that cannot do its work on this machine says why and exits with `NOT_RUN`.
"""

import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_RUN = 75  # sysexits.h: EX_TEMPFAIL
_INTERRUPTED = 130

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
    """A named command; after `minutes` it is ended and has failed."""

    name: str
    command: Sequence[str | Path]
    minutes: float = 10
    environment: Mapping[str, str | Path] = field(default_factory=dict)

    def run(self, count: TestCount) -> str:
        """Run the command, pass its output on line by line; return passed, failed or not run."""
        command = [str(part) for part in self.command]
        print(f"\n--- {self.name}: {shlex.join(_shortened(command))}", flush=True)
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **{key: str(value) for key, value in self.environment.items()}},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        # In a thread: a process that outlives the command may hold the pipe open.
        reader = threading.Thread(target=_pass_on, args=(process, count), daemon=True)
        reader.start()
        try:
            result = _result(process.wait(timeout=self.minutes * 60))
        except subprocess.TimeoutExpired:
            print(f"{self.name}: ended after {self.minutes:.2g} minutes", flush=True)
            result = "failed"
        finally:
            _end_group(process)
        reader.join(timeout=5)
        print(f"--- {self.name}: {result}, {time.monotonic() - started:.1f} s", flush=True)
        return result


def run_all(verb: str, steps: Iterable[Step], notes: Sequence[str] = ()) -> int:
    """Run every step, print the notes and what became of the steps, and return the exit code: 0, 1
    if a step failed, 130 if Ctrl-C or SIGTERM ended it."""
    # Steps are sessions of their own: whoever ends this ends them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    count = TestCount()
    results: dict[str, list[str]] = {"passed": [], "not run": [], "failed": []}
    for step in steps:
        try:
            results[step.run(count)].append(step.name)
        except KeyboardInterrupt:
            done = _steps(sum(map(len, results.values())))
            print(f"\nmake {verb}: stopped during {step.name}, after {done}", flush=True)
            return _INTERRUPTED
    print()
    for note in notes:
        print(note)
    if count != TestCount():
        print(count)
    print(_sum(verb, results), flush=True)
    return 1 if results["failed"] else 0


def _sum(verb: str, results: Mapping[str, Sequence[str]]) -> str:
    """A line for each result, and one that counts them."""
    lines = [f"{_HEADS[result]}: {', '.join(names)}" for result, names in results.items() if names]
    counts = f"{_steps(len(results['passed']))} passed, {len(results['failed'])} failed"
    if results["not run"]:
        counts += f", {len(results['not run'])} not run"
    return "\n".join([*lines, f"make {verb}: {counts}"])


def _steps(count: int) -> str:
    return f"{count} {'step' if count == 1 else 'steps'}"


def _result(code: int) -> str:
    return {0: "passed", NOT_RUN: "not run"}.get(code, "failed")


def _pass_on(process: subprocess.Popen[str], count: TestCount) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            print(line, end="", flush=True)
            count.add(line)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End what is left of a step: all of it after its time, or what it forgot to end itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line.rstrip("\n"))


def _shortened(command: list[str]) -> list[str]:
    return [part.removeprefix(f"{ROOT}/") for part in command]
