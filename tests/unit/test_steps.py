"""The closing lines of the test runners, as `make test` counts them."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def test_every_step_runs_and_what_failed_has_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = [
        _python("first", "raise SystemExit(3)"),
        _python("second", "print('=== 2 passed in 1s ===')"),
    ]
    assert run_all("test", steps) == 1
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
    assert run_all("lint", [_python("audit", f"raise SystemExit({NOT_RUN})")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["not run: audit", "make lint: 0 steps passed, 0 failed, 1 not run"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_stops_it_gets_a_sentence_and_no_further_step(
    number: signal.Signals, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    # Who was started in the background by a script ignores SIGINT, and so do we then.
    before = signal.signal(number, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(number, before))
    stopping = f"import os; os.kill({os.getpid()}, {number:d}); input()"
    waiting = Step("second", ["sh", "-c", f"{sys.executable} -c '{stopping}'; exec sleep 60"], 1)
    assert run_all("test", [_python("first", ""), waiting, _python("third", "")]) == 130
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == "make test: stopped during second, after 1 step"
    assert "third" not in output


def test_a_step_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    child = f"(echo started; exec sleep 60) >{fifo} & wait"
    assert Step("hangs", ["sh", "-c", child], minutes=1 / 60).run(TestCount()) == "failed"
    os.set_blocking(reader, True)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == "started\n"  # and then its end: nobody writes any more


def _python(name: str, code: str, minutes: float = 1) -> Step:
    return Step(name, [sys.executable, "-c", code], minutes)
