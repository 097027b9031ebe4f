"""The lanes and steps of `make test`, and how it counts tests by closing lines."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from make import steps as steps_module
from make.steps import NOT_RUN, Step, TestCount, run_all


@pytest.mark.parametrize(
    ("line", "sum_of_it"),
    [
        ("===== 3 passed in 0.60s =====", "3 passed, 0 failed"),
        (
            "== 1 failed, 8 passed, 2 skipped in 61.12s (0:01:01) ==",
            "8 passed, 1 failed, 2 skipped",
        ),
        ("= 2 passed, 3 warnings, 1 error in 0.10s =", "2 passed, 1 failed"),
        (
            "test result: ok. 8 passed; 0 failed; 1 ignored; 0 measured",
            "8 passed, 0 failed, 1 skipped",
        ),
        ("     Summary [   1.2s] 9 tests run: 9 passed, 0 skipped", "9 passed, 0 failed"),
        (
            "     Summary [  6s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 4 skipped",
            "6 passed, 3 failed, 4 skipped",
        ),
        ("\x1b[32m\x1b[1m     Summary\x1b[0m [   0.1s] 1 test run: 1 passed", "1 passed, 0 failed"),
        ("an order: 12 passed, 3 failed", "0 passed, 0 failed"),
    ],
)
def test_counts_the_tests_of_a_closing_line(line: str, sum_of_it: str) -> None:
    count = TestCount()
    count.add(line + "\n")
    assert str(count) == sum_of_it


@pytest.fixture(autouse=True)
def usual_sigterm() -> Iterator[None]:
    """Undoes what run_all does to the handler of SIGTERM."""
    usual = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, usual)


def test_every_step_runs_and_a_failed_one_has_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = [
        _python("first", "raise SystemExit(3)"),
        _python("second", "print('=== 2 passed in 1s ===')"),
    ]
    assert run_all("test", [steps]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4:] == [
        "2 passed, 0 failed",
        "passed: second",
        "FAILED: first",
        "make test: 1 step passed, 1 failed",
    ]


def test_a_step_that_cannot_run_here_fails_nothing_but_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_all("lint", [[_python("audit", f"raise SystemExit({NOT_RUN})")]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["not run: audit", "make lint: 0 steps passed, 0 failed, 1 not run"]


def test_lanes_run_at_the_same_time_and_their_output_does_not_mix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # opening it waits for the other end: a single step would wait forever
    lanes = [
        [_python("reader", f"print('a'); open({str(fifo)!r}).read(); print('b')")],
        [_python("writer", f"print('c'); open({str(fifo)!r}, 'w').close(); print('d')")],
    ]
    assert run_all("test", lanes) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("a") + 1] == "b"
    assert lines[lines.index("c") + 1] == "d"


def test_a_step_waits_for_the_step_of_another_lane_that_it_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tests = Step("tests", [sys.executable, "-c", ""], after="build")
    assert run_all("test", [[tests], [_python("lint", ""), _python("build", "")]]) == 0
    assert "passed: lint, build, tests" in capsys.readouterr().out


def test_a_step_does_not_run_if_the_step_that_it_needs_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tests = Step("tests", [sys.executable, "-c", ""], after="build")
    assert run_all("test", [[tests], [_python("build", "raise SystemExit(1)")]]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "--- tests: not run, because build did not pass" in lines
    assert lines[-1] == "make test: 0 steps passed, 1 failed, 1 not run"


def test_a_step_that_wants_to_be_alone_runs_when_all_lanes_are_empty(
    capsys: pytest.CaptureFixture[str],
) -> None:
    faults = Step("faults", [sys.executable, "-c", ""], alone=True)
    lanes = [[_python("lint", ""), _python("tests", "")], [_python("build", "")], [faults]]
    assert run_all("test", lanes) == 0
    assert capsys.readouterr().out.splitlines()[-2].endswith(", faults")


def test_two_steps_that_want_to_be_alone_run_one_after_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = str(tmp_path / "there")
    code = f"import os; os.mkdir({there!r}); os.rmdir({there!r})"  # fails if the other one is there
    lanes = [[Step(name, [sys.executable, "-c", code], alone=True)] for name in ("faults", "soak")]
    assert run_all("test", lanes) == 0
    assert "passed: faults, soak" in capsys.readouterr().out


def test_a_line_says_now_and_then_what_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(steps_module, "_PROGRESS_SECONDS", 0.05)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    step = _python("tests", f"print('42%', flush=True); open({str(gate)!r}).read()")

    def report(run: Any) -> None:
        usual(run)
        if "42%" in capsys.readouterr().out:
            monkeypatch.setattr(steps_module._Run, "_report", usual)  # nobody reads a second time
            gate.open("w").close()

    usual = steps_module._Run._report
    monkeypatch.setattr(steps_module._Run, "_report", report)
    assert run_all("test", [[step]]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_running_steps_and_starts_no_other(
    number: signal.Signals, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    # A shell that starts a job in the background makes it ignore SIGINT.
    before = signal.signal(number, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(number, before))
    stopping = f"import os; os.kill({os.getpid()}, {number:d}); input()"
    waiting = Step("second", ["sh", "-c", f"{sys.executable} -c '{stopping}'; exec sleep 60"])
    assert run_all("test", [[_python("first", ""), waiting, _python("third", "")]]) == 130
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == "make test: stopped during second, after 1 step"
    assert "third" not in output


def test_a_step_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    child = f"(echo started; exec sleep 60) >{fifo} & wait"
    assert run_all("test", [[Step("hangs", ["sh", "-c", child], minutes=1 / 60)]]) == 1
    assert "hangs: ended after 0.017 minutes" in capsys.readouterr().out
    os.set_blocking(reader, True)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "started\n"  # and then its end: nobody writes any more


def _python(name: str, code: str) -> Step:
    return Step(name, [sys.executable, "-c", code])
