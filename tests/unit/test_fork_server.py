"""A program that the tests' fork server runs is as one that Python starts."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command import Command
from tests.forked import ALWAYS, Forked, can_fork

SHOW = """
import json, os, signal, sys, threading
from pathlib import Path
from django.conf import settings

main = vars(sys.modules["__main__"])
streams = sys.stdin, sys.stdout, sys.stderr
status = Path("/proc/self/status").read_text().splitlines()
compared = "SigBlk", "SigIgn", "SigCgt", "Threads", "Umask"
print(json.dumps({
    "arguments": [sys.argv, sys.orig_argv, sys.executable, sys._xoptions, sys.warnoptions],
    "flags": list(sys.flags),
    "path": sys.path,
    "environment": dict(os.environ),
    "folder": [os.getcwd(), Path("/proc/self/cwd").readlink().name],
    "group": [os.getpgrp(), os.getsid(0)],
    "status": [line for line in status if line.startswith(compared)],
    "handlers": [str(signal.getsignal(each)) for each in signal.Signals],
    "files": [
        [int(each), os.get_inheritable(int(each)), os.readlink(f"/proc/self/fd/{each}")]
        for each in sorted(os.listdir("/proc/self/fd"))
        if os.path.exists(f"/proc/self/fd/{each}")
    ],
    "streams": [[str(each), each.line_buffering, each.write_through] for each in streams],
    "main": {name: str(main[name]) for name in ("__name__", "__file__", "__spec__", "__package__")},
    "threads": [each.name for each in threading.enumerate()],
    "settings": settings.configured,
}, indent=1))
print("an error", file=sys.stderr)
sys.exit(7)
"""
LASTING = "import time; print('begun'); time.sleep(60)"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def start(script: str, *arguments: str, forks: bool = True, fd: int | None = None) -> Command:
        (tmp_path / "program.py").write_text(script)
        environment = {"GREETING": "gr\u00fc\u00df \udcff dich"}
        fds = [] if fd is None else [fd]
        command = Command(
            "program.py", *arguments, folder=tmp_path, environment=environment, fds=fds, forks=forks
        )
        assert isinstance(command._process, Forked) == forks
        commands.append(command)
        return command

    yield start
    for command in commands:
        command.end()


@pytest.fixture(params=["unusual", "usual"])
def signals(request: pytest.FixtureRequest) -> Iterator[None]:
    """Signals that this process ignores and blocks. The programs that it starts do so, too."""
    if request.param == "usual":
        yield
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.mark.usefixtures("signals")
def test_a_forked_program_sees_what_a_started_one_sees(
    run: Callable[..., Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADDED", "later")
    monkeypatch.delenv("PATH")
    with Path(__file__).open() as file:
        forked = run(SHOW, "one", "--two", fd=file.fileno())
        started = run(SHOW, "one", "--two", fd=file.fileno(), forks=False)
        assert (forked.finish(), started.finish()) == (7, 7)
    assert "an error" in started.output
    assert Path(__file__).name in started.output
    assert _without_pipes(forked) == _without_pipes(started)


def _without_pipes(command: Command) -> list[str]:
    return [line for line in command.output.splitlines() if '"pipe:' not in line]


def test_an_error_is_told_and_the_exit_code_is_1(run: Callable[..., Command]) -> None:
    command = run("def fail():\n    raise ValueError('no')\n\nfail()")
    assert command.finish() == 1
    assert 'program.py", line 4, in <module>' in command.output
    assert command.output.endswith("ValueError: no\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_a_program_and_the_exit_code_tells_it(
    run: Callable[..., Command], number: signal.Signals
) -> None:
    command = run(LASTING)
    command.wait_for("begun")
    assert not command.has_ended
    command.interrupt(number)
    assert command.finish() == -number
    command.interrupt(number)  # nobody gets it


def test_no_program_holds_the_output_of_another_one(run: Callable[..., Command]) -> None:
    first, second = run(LASTING), run(LASTING)
    for command in (first, second):
        command.wait_for("begun")
    first.end()
    assert not first._reader.is_alive()
    assert not second.has_ended
    second.end()
    assert not second._reader.is_alive()


def test_programs_draw_other_random_numbers(run: Callable[..., Command]) -> None:
    draw = "import random, tempfile, uuid; print(random.random(), tempfile.mktemp(), uuid.uuid4())"
    commands = [run(draw), run(draw)]
    assert [command.finish() for command in commands] == [0, 0]
    first, second = (command.output.split() for command in commands)
    assert len(first) == len({*first, *second} - {*second}) == 3


@pytest.mark.parametrize(
    ("program", "variables", "expected"),
    [
        (["manage.py", "check"], {"GREETING": "hello"}, True),
        (["-c", "pass"], {}, False),
        (["-X", "dev", "manage.py"], {}, False),
        (["manage.py"], {"PYTHONPATH": "elsewhere"}, False),
        (["manage.py"], {"TZ": "Europe/Berlin"}, False),
    ],
)
def test_a_program_that_needs_another_start_is_not_forked(
    program: list[str], variables: dict[str, str], expected: bool
) -> None:
    assert can_fork(program, {**os.environ, **ALWAYS, **variables}) is expected
