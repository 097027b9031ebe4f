"""SIGTERM and Ctrl-C: what runs may finish, and nothing is lost."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.command import Command
from tests.live.support.project import Project
from tests.servers import NatsServer
from tests.waiting import eventually

CONSUMERS = """
import asyncio, logging, threading, time
from pathlib import Path
from nats_consumer import JetstreamPullConsumer, JetstreamPushConsumer, operations

logger = logging.getLogger("shop")
GO = Path("go")


class Orders(JetstreamPushConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    concurrency = 2

    async def setup(self):
        return operations.CreateStream(name={stream!r}, subjects=["{stream}.>"])

    {handler}
"""

# Each waits until the test lets it go, on its own way.
AWAITS = """
    async def handle_message(self, message):
        logger.info("began %s", message.data.decode())
        while not GO.exists():
            await asyncio.sleep(0.01)
        logger.info("finished %s", message.data.decode())
"""
BLOCKS_A_THREAD = """
    def handle_message(self, message):
        logger.info("began %s", message.data.decode())
        while not GO.exists():
            time.sleep(0.01)
        logger.info("finished %s", message.data.decode())
"""
RUNS_LATE = f"""
    handler_timeout = 0.3
{BLOCKS_A_THREAD}"""
BLOCKS_THE_LOOP = BLOCKS_A_THREAD.replace("def handle", "async def handle")


class Shop:
    """The project at work: one message is being handled, and does not finish by itself."""

    def __init__(self, project: Project, stream: str, *arguments: str) -> None:
        self.project = project
        self.worker = self.start(*arguments)
        self.publish("one")
        self.worker.wait_for("began one")

    def start(self, *arguments: str) -> Command:
        worker = self.project.consume("--setup", *arguments)
        worker.wait_for("Orders: consuming")
        return worker

    def publish(self, payload: str) -> None:
        publisher = self.project.run("publish.py", payload)
        assert publisher.finish() == 0, publisher.output

    def let_go(self) -> None:
        self.project.write("go", "")


PUBLISH = """
import asyncio, sys
from nats_consumer import get_nats_client

async def publish():
    async with await get_nats_client() as client:
        await client.jetstream().publish("{stream}.created", sys.argv[1].encode())

asyncio.run(publish())
"""


@pytest.fixture
def stream(fresh: Callable[[str], str]) -> str:
    return fresh("orders")


@pytest.fixture
def make_shop(make_project: Callable[..., Project], stream: str) -> Callable[..., Shop]:
    def make(handler: str, *arguments: str) -> Shop:
        project = make_project(CONSUMERS.format(stream=stream, handler=handler.lstrip()))
        project.write("publish.py", PUBLISH.format(stream=stream))
        return Shop(project, stream, *arguments)

    return make


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("handler", [AWAITS, BLOCKS_A_THREAD], ids=["async", "def"])
def test_running_handler_finishes_and_the_exit_code_is_0(
    make_shop: Callable[..., Shop],
    nats_server: NatsServer,
    stream: str,
    handler: str,
    number: signal.Signals,
) -> None:
    shop = make_shop(handler)
    shop.worker.interrupt(number)
    shop.worker.wait_for("Draining")
    shop.let_go()
    assert shop.worker.finish() == 0, shop.worker.output
    assert "finished one" in shop.worker.output
    position = nats_server.consumer(stream, "Orders")
    assert (position["ack_floor"]["stream_seq"], position["num_redelivered"]) == (1, 0)


def test_what_has_not_started_is_handed_back_at_once(
    make_shop: Callable[..., Shop], nats_server: NatsServer, stream: str
) -> None:
    shop = make_shop(AWAITS)
    for number in range(6):
        shop.publish(str(number))
    # Two are being handled, by concurrency; the worker may hold more of them.
    shop.worker.wait_for("began 0")
    shop.worker.interrupt()
    shop.worker.wait_for("Draining")
    shop.let_go()
    assert shop.worker.finish() == 0, shop.worker.output
    second = shop.start()
    # Long before ack_wait, which is 30 s.
    eventually(lambda: nats_server.consumer(stream, "Orders")["ack_floor"]["stream_seq"] == 7, 10)
    second.interrupt()
    assert second.finish() == 0, second.output
    first = [line.split()[-1] for line in shop.worker.lines_with("finished")]
    later = [line.split()[-1] for line in second.lines_with("finished")]
    assert sorted(first + later) == ["0", "1", "2", "3", "4", "5", "one"]


def test_a_hangup_lets_what_runs_finish_and_the_process_begin_again(
    make_shop: Callable[..., Shop],
) -> None:
    shop = make_shop(AWAITS)
    pid = shop.worker.pid
    shop.worker.interrupt(signal.SIGHUP)
    shop.worker.wait_for("Draining")
    shop.let_go()
    shop.worker.wait_for("finished one")
    shop.worker.wait_for_lines("Orders: consuming", 2)
    assert (shop.worker.pid, shop.worker.has_ended) == (pid, False)
    shop.publish("two")
    shop.worker.wait_for("finished two")
    shop.worker.interrupt()
    assert shop.worker.finish() == 0, shop.worker.output


def test_a_stop_while_a_hangup_drains_lets_what_runs_finish_and_the_process_end(
    make_shop: Callable[..., Shop],
) -> None:
    shop = make_shop(AWAITS)
    shop.worker.interrupt(signal.SIGHUP)
    shop.worker.wait_for("Draining")
    for number in (signal.SIGTERM, signal.SIGUSR1):
        # Longer than two signals count as one, and than Python has for ending the process.
        until = time.monotonic() + 1.5
        eventually(lambda until=until: time.monotonic() > until)
        shop.worker.interrupt(number)
    shop.worker.wait_for("Orders draining")
    shop.let_go()
    assert shop.worker.finish() == 0, shop.worker.output
    assert "finished one" in shop.worker.output
    assert "Restarting" not in shop.worker.output


def test_a_process_whose_terminal_was_closed_drains_and_ends(
    make_shop: Callable[..., Shop],
) -> None:
    shop = make_shop(AWAITS)
    shop.let_go()
    shop.project.write("on_a_terminal.py", ON_A_TERMINAL)
    starter = shop.project.run("on_a_terminal.py")
    starter.wait_for("Orders: consuming")
    starter.interrupt()
    assert starter.finish() == 0, starter.output
    assert starter.lines_with("status 0")
    assert not starter.lines_with("Restarting")


# Runs the command on a terminal of its own, and closes it at SIGTERM.
ON_A_TERMINAL = """
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    errors = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    os.execv(sys.executable, [sys.executable, "manage.py", "nats_consumer"])
signal.signal(signal.SIGTERM, lambda *_: os.close(terminal))
shown = 0
while True:
    ended, status = os.waitpid(pid, os.WNOHANG)
    if os.path.exists("output"):
        text = open("output").read()
        print(text[shown:], end="", flush=True)
        shown = len(text)
    if ended:
        print("status", os.waitstatus_to_exitcode(status))
        break
    signal.sigtimedwait([], 0.05)
"""


def test_a_process_shows_at_a_signal_what_it_does(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(BLOCKS_A_THREAD)
    shop.worker.interrupt(signal.SIGUSR1)
    shop.worker.wait_for("Orders: message 1, attempt 1, came")
    shop.worker.wait_for("in handle_message")
    shop.let_go()
    shop.worker.wait_for("finished one")


@pytest.mark.parametrize("handler", [AWAITS, BLOCKS_A_THREAD], ids=["async", "def"])
def test_handler_that_takes_too_long_is_left_and_its_message_comes_again(
    make_shop: Callable[..., Shop], nats_server: NatsServer, stream: str, handler: str
) -> None:
    shop = make_shop(handler, "--shutdown-timeout", "0.3")
    shop.worker.interrupt()
    assert shop.worker.finish(timeout=15) == 0, shop.worker.output
    assert "handed back" in shop.worker.output
    assert "finished" not in shop.worker.output
    second = shop.start()
    second.wait_for("began one", timeout=10)
    shop.let_go()
    second.wait_for("finished one")
    second.interrupt()
    assert second.finish() == 0, second.output
    assert nats_server.consumer(stream, "Orders")["ack_floor"]["stream_seq"] == 1


def test_late_handler_does_not_hold_up_the_end_and_its_message_is_tried_again(
    make_shop: Callable[..., Shop], nats_server: NatsServer, stream: str
) -> None:
    shop = make_shop(RUNS_LATE, "--shutdown-timeout", "0.3")
    shop.worker.wait_for("runs in the thread Orders-")
    shop.worker.interrupt()
    assert shop.worker.finish(timeout=15) == 0, shop.worker.output
    assert "finished" not in shop.worker.output
    shop.let_go()
    second = shop.start()
    second.wait_for("finished one", timeout=10)
    second.interrupt()
    assert second.finish() == 0, second.output
    assert nats_server.consumer(stream, "Orders")["ack_floor"]["stream_seq"] == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("handler", [AWAITS, BLOCKS_A_THREAD], ids=["async", "def"])
def test_second_signal_ends_it_at_once(
    make_shop: Callable[..., Shop],
    nats_server: NatsServer,
    stream: str,
    handler: str,
    number: signal.Signals,
    code: int,
) -> None:
    shop = make_shop(handler)
    shop.worker.interrupt(number)
    shop.worker.wait_for("Draining")
    began = time.monotonic()

    def ended() -> bool:
        # One that comes within a second of the first is taken to be the same.
        shop.worker.interrupt(number)
        return shop.worker.has_ended

    eventually(ended, timeout=10)
    assert time.monotonic() - began < 5  # far below the 25 s that the handler could have
    assert shop.worker.finish() == code
    # Not settled, so not lost.
    assert nats_server.consumer(stream, "Orders")["num_ack_pending"] == 1


def test_second_signal_ends_it_also_while_a_handler_blocks_the_event_loop(
    make_shop: Callable[..., Shop], nats_server: NatsServer, stream: str
) -> None:
    shop = make_shop(BLOCKS_THE_LOOP)

    def ended() -> bool:
        # Nothing shows when the first of them was taken in: the loop that would say so is blocked.
        shop.worker.interrupt()
        return shop.worker.has_ended

    eventually(ended, timeout=10)
    assert shop.worker.finish() == 143
    assert nats_server.consumer(stream, "Orders")["num_ack_pending"] == 1


def test_idle_worker_ends_within_moments(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(AWAITS)
    shop.let_go()
    shop.worker.wait_for("finished one")
    shop.worker.interrupt()
    assert shop.worker.finish(timeout=10) == 0
    assert "Drained" in shop.worker.output


BLOCKS_FOR_GOOD = """
    async def handle_message(self, message):
        logger.info("began %s", message.data.decode())
        threading.Event().wait()
"""
FORKS = """
    def handle_message(self, message):
        import multiprocessing

        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60])
        child.start()
        child.terminate()
        child.join(30)
        logger.info("ended by %s, began %s", child.exitcode, message.data.decode())
"""


def test_sigterm_hands_back_and_ends_the_process_although_a_handler_blocks_the_event_loop(
    make_shop: Callable[..., Shop], nats_server: NatsServer, stream: str
) -> None:
    shop = make_shop(BLOCKS_FOR_GOOD, "--shutdown-timeout", "0.3")
    for number in range(3):
        shop.publish(str(number))
    eventually(lambda: nats_server.consumer(stream, "Orders")["num_ack_pending"] > 1)
    shop.worker.interrupt()
    assert shop.worker.finish(timeout=15) == 0, shop.worker.output
    assert "the process did not end within" in shop.worker.output
    second = shop.start("--shutdown-timeout", "0.3")
    second.wait_for("began", timeout=10)  # long before ack_wait, which is 30 s
    second.interrupt()
    assert second.finish(timeout=15) == 0


def test_a_child_process_of_a_handler_ends_at_sigterm(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(FORKS)
    assert f"ended by -{int(signal.SIGTERM)}, began one" in shop.worker.output
    shop.worker.interrupt()
    assert shop.worker.finish() == 0, shop.worker.output
