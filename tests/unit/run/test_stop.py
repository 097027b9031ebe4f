"""Signals around the end of a process that was asked to stop."""

import os
import signal
import subprocess
import sys

import pytest

from tests.waiting import eventually

ENDING = """
import asyncio, os, signal
from nats_consumer.run.stop import set_by_signals

# Whoever runs the tests may ignore it, as nohup does.
signal.signal(signal.{name}, signal.default_int_handler if {name!r} == "SIGINT" else signal.SIG_DFL)

async def run():
    stopping = asyncio.Event()
    with set_by_signals(stopping, grace=25, exits={exits}):
        os.kill(os.getpid(), signal.{name})
        await stopping.wait()

class Late:
    # Deleted when Python has given signals their default back.
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.{name}):
        kill(pid, number)

asyncio.run(run())
late = Late()
"""


def status(exits: bool, name: str) -> int:
    script = ENDING.format(exits=exits, name=name)
    return subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_while_python_ends_does_not_turn_status_0_into_a_failure(name: str) -> None:
    assert status(exits=True, name=name) == 0


def test_a_caller_that_goes_on_has_its_signals_back() -> None:
    assert status(exits=False, name="SIGTERM") == -signal.SIGTERM


# Drained, and Python does not end: it waits in one of these ways.
WAITING = """
import asyncio, atexit, multiprocessing, os, signal, time
from concurrent.futures import ThreadPoolExecutor
from nats_consumer.run.stop import set_by_signals

def wait():
    # In one piece: two threads write.
    os.write(1, f"waits {{os.getpid()}}\\n".encode())
    time.sleep(600)

def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait()

async def run():
    stopping = asyncio.Event()
    with set_by_signals(stopping, grace=600, exits=True):
        os.kill(os.getpid(), signal.SIGTERM)
        await stopping.wait()

pool = ThreadPoolExecutor(1)
if {what!r} == "atexit":
    atexit.register(wait)
elif {what!r} == "pool":
    pool.submit(wait)
else:
    context = multiprocessing.get_context("fork")
    context.Process(target=deaf, daemon={what!r} == "daemon").start()
asyncio.run(run())
os.write(1, f"drained {{os.getpid()}}\\n".encode())
"""


@pytest.mark.parametrize("what", ["atexit", "pool", "child", "daemon"])
def test_a_second_signal_ends_a_process_that_has_drained_and_waits(what: str) -> None:
    script = [sys.executable, "-c", WAITING.format(what=what)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = dict(each.split() for each in (process.stdout.readline() for _ in range(2)))
        child = int(said["waits"])

        def ended() -> bool:
            # One that comes within a second of the first is taken to be the same.
            process.terminate()
            return process.poll() is not None

        try:
            # Far below the ten minutes that the drain could have taken.
            eventually(ended, timeout=60)
        finally:
            process.kill()
            if child != process.pid:
                os.kill(child, signal.SIGKILL)
    assert process.returncode == 0


ELSEWHERE = """
import asyncio, signal, threading, uvloop
from nats_consumer.run.stop import set_by_signals

def interrupt():
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

async def run():
    stopping = asyncio.Event()
    with set_by_signals(stopping, grace=600):
        # The loop sleeps by then.
        threading.Timer(0.2, interrupt).start()
        await stopping.wait()

asyncio.Runner(loop_factory={factory}).run(run())
"""


@pytest.mark.parametrize("factory", ["asyncio.SelectorEventLoop", "uvloop.new_event_loop"])
def test_a_signal_that_another_thread_was_given_wakes_the_event_loop(factory: str) -> None:
    script = ELSEWHERE.format(factory=factory)
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 0


# The loop of the second run is blocked, so only the engine can hear the signal.
TWICE = """
import asyncio, os, signal, threading, time
from nats_consumer.run.stop import set_by_signals

async def first():
    with set_by_signals(asyncio.Event(), grace=0):
        pass

async def second():
    with set_by_signals(asyncio.Event(), grace=0):
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            time.sleep(0.05)

asyncio.run(first())
if {forks} and (child := os.fork()):
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
asyncio.run(second())
"""


@pytest.mark.parametrize("forks", [False, True])
def test_the_engine_hears_signals_in_a_second_run_in_one_process_too(forks: bool) -> None:
    script = TWICE.format(forks=forks)
    ended = subprocess.run(
        [sys.executable, "-c", script], timeout=30, check=False, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "the process did not end within" in ended.stderr
