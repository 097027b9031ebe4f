"""manage.py nats_consumer --workers N: processes under a supervisor that outlives each of them."""

import asyncio
import signal
import time
from collections.abc import Callable

import pytest

from nats_consumer.connect.embedded.locks import is_held
from tests.live.support.probes import listening
from tests.live.support.project import Project
from tests.live.support.stage import Stage
from tests.live.support.stopped import STOPS_THE_ENGINE
from tests.live.support.supervised import Supervised, is_alive, kill
from tests.servers import NatsServer
from tests.waiting import becomes_true, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(170)]

CONSUMERS = """
import logging, os, time
from pathlib import Path
from nats_consumer import JetstreamPullConsumer, operations

logging.getLogger("shop").info("this is version {version}")


class Orders(JetstreamPullConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    ack_wait = 5
    concurrency = 4

    def setup(self):
        return operations.CreateStream(name={stream!r}, subjects=["{stream}.>"])

    async def handle_message(self, message):
        note(f"{version} {{os.getpid()}} {{message.data.decode()}} {{message.attempt}}")
        {handler}


def note(line):
    file = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode() + b"\\n")
    os.close(file)
"""


def consumers(stream: str, version: int = 1, handler: str = "pass") -> str:
    text = CONSUMERS.format(stream=stream, version=version, handler=handler)
    # Of another length: within a second Python takes a source of the same for unchanged.
    return text + "#" * version + "\n"


class Shop:
    """A project whose consumer notes version, process, payload and attempt of what it handles."""

    def __init__(self, make_project: Callable[..., Project], stream: str) -> None:
        self._stream = stream
        self.project = make_project(consumers(stream))

    def start(self, count: int, *arguments: str) -> Supervised:
        return Supervised(self.project, count, *arguments)

    def change(self, version: int, handler: str = "pass") -> None:
        self.project.write("shop/consumers.py", consumers(self._stream, version, handler))

    def ledger(self) -> list[list[str]]:
        file = self.project.folder / "ledger"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def shop(make_project: Callable[..., Project], stage: Stage) -> Shop:
    return Shop(make_project, stage.stream)


async def test_all_workers_handle_messages_and_a_signal_drains_them(
    shop: Shop, stage: Stage
) -> None:
    shop.change(1, "await __import__('asyncio').sleep(0.02)")
    workers = shop.start(2)
    pids = workers.pids()
    assert len(pids) == 2
    await stage.publish(*range(200))
    await becomes_true(lambda: len(shop.ledger()) == 200)
    assert {int(pid) for _, pid, *_ in shop.ledger()} == pids
    await becomes_true(
        lambda: workers.probes.samples().value("settled_total", outcome="ack") == 200
    )
    workers.finish()
    assert len(workers.command.lines_with("Drained")) == 2


async def test_setup_runs_once_and_before_the_other_workers(
    shop: Shop, stage: Stage, stream_name: str
) -> None:
    await stage.jetstream.delete_stream(stream_name)
    workers = shop.start(3, "--setup")
    assert len(workers.command.lines_with(f"Stream {stream_name} is created")) == 1
    assert not workers.command.lines_with("already exists")
    assert not workers.command.lines_with("does not exist")


async def test_workers_that_cannot_begin_end_the_command_with_the_first_ones_error(
    shop: Shop, stage: Stage, stream_name: str
) -> None:
    await stage.jetstream.delete_stream(stream_name)
    command = shop.project.consume("--workers", "3")
    assert command.finish() == 1
    assert len(command.lines_with("does not exist")) == 1, command.output


async def test_one_port_answers_for_all_and_workers_listen_at_none(shop: Shop) -> None:
    workers = shop.start(2)
    answer = workers.probes.get("/readyz")
    assert answer.status == 200
    first, second = answer.text.splitlines()
    assert first.startswith("[+] Orders consuming (")
    assert first.endswith("ready in 2 of 2 workers")
    assert second == "[+] 2 of 2 workers"
    assert workers.probes.get("/readyz?consumer=Orders").text.count("\n") == 1
    assert workers.probes.get("/readyz?consumer=Nobody").status == 404
    assert not any(listening(pid) for pid in workers.pids())
    samples = workers.probes.samples()
    assert (samples.value("workers"), samples.value("workers_wanted")) == (2, 2)
    assert workers.starts("first") == 2
    for number in ("0", "1"):
        assert samples.value("worker_heartbeat_seconds", worker=number) is not None
    await becomes_true(
        lambda: (
            (workers.probes.samples().value("process_resident_memory_bytes", worker="1") or 0)
            > 10_000_000
        )
    )


async def test_a_worker_that_is_killed_is_followed_by_another_one(shop: Shop, stage: Stage) -> None:
    workers = shop.start(2)
    await stage.publish(*range(50))
    acks = lambda: workers.probes.samples().value("settled_total", outcome="ack")  # noqa: E731
    await becomes_true(lambda: acks() == 50)
    victim = workers.pid()
    kill(victim)
    told = workers.command.wait_for(f"The worker {victim} was ended by SIGKILL")
    assert told.startswith("ERROR nats_consumer.worker: ")
    assert acks() == 50
    workers.become_ready(without={victim})
    assert workers.starts("killed") == 1
    assert len(workers.pids()) == 2
    await stage.publish(*range(50))
    await becomes_true(lambda: acks() == 100)
    workers.finish()


async def test_readyz_keeps_its_grace_while_the_only_worker_is_gone_and_follows_a_drain_at_once(
    shop: Shop, stage: Stage
) -> None:
    settings = shop.project.folder / "settings.py"
    settings.write_text(settings.read_text() + "NATS_CONSUMER['ready_grace'] = 600\n")
    shop.change(1, FINISHES_WHEN_TOLD)
    workers = shop.start(1)
    victim = workers.pid()
    kill(victim)
    workers.command.wait_for(f"The worker {victim} was ended by SIGKILL")

    def is_back() -> bool:
        answer, samples = workers.probes.get("/readyz"), workers.probes.samples()
        assert answer.status == 200, answer.text
        assert samples.value("ready", consumer="Orders") == 1
        return bool(workers.pids()) and "Orders consuming" in answer.text

    await becomes_true(is_back, 60)
    await stage.publish("one")
    await becomes_true(lambda: len(shop.ledger()) == 1)
    workers.send(signal.SIGTERM)
    await becomes_true(lambda: not workers.probes.is_ready(), 5)
    assert "[-] Orders draining" in workers.probes.get("/readyz").text
    shop.project.write("go", "")
    assert workers.command.finish() == 0, workers.command.output


async def test_a_worker_that_is_killed_again_and_again_starts_after_growing_pauses(
    shop: Shop,
) -> None:
    workers = shop.start(1)
    for _ in range(3):
        victim = workers.pid()
        kill(victim)
        workers.become_ready(without={victim})
    lines = workers.command.lines_with("Another one starts in")
    pauses = [float(line.split()[-2]) for line in lines]
    assert pauses[0] < pauses[1] < pauses[2]


async def test_no_worker_outlives_its_supervisor(shop: Shop, stage: Stage) -> None:
    shop.change(1, "__import__('time').sleep(1)")
    workers = shop.start(2, "--shutdown-timeout", "5")
    pids = workers.pids()
    await stage.publish("one")
    await becomes_true(lambda: len(shop.ledger()) == 1)
    workers.send(signal.SIGKILL)
    await becomes_true(lambda: not any(is_alive(pid) for pid in pids), 5 + 5)


async def test_a_worker_that_drains_finishes_though_its_supervisor_is_killed(
    shop: Shop, stage: Stage
) -> None:
    shop.change(1, FINISHES_WHEN_TOLD)
    workers = shop.start(1)
    pid = workers.pid()
    await stage.publish("one")
    await becomes_true(lambda: len(shop.ledger()) == 1)
    kill(pid, signal.SIGTERM)
    workers.command.wait_for("Draining: running handlers")
    await a_second_passes()
    workers.send(signal.SIGKILL)
    await a_second_passes()
    shop.project.write("go", "")
    await becomes_true(lambda: not is_alive(pid), 20)
    assert shop.ledger()[-1][0] == "end"


async def test_a_stop_during_a_roll_lets_handlers_of_old_workers_finish(
    shop: Shop, stage: Stage
) -> None:
    shop.change(1, FINISHES_WHEN_TOLD)
    workers = shop.start(1)
    await stage.publish("one")
    await becomes_true(lambda: len(shop.ledger()) == 1)
    workers.send(signal.SIGHUP)
    workers.command.wait_for("Draining: running handlers")
    await a_second_passes()
    workers.send(signal.SIGTERM)
    await a_second_passes()
    shop.project.write("go", "")
    assert workers.command.finish() == 0, workers.command.output
    assert shop.ledger()[-1][0] == "end"
    assert not workers.command.lines_with("while it drained")


FINISHES_WHEN_TOLD = """
        while not Path("go").exists():
            await __import__("asyncio").sleep(0.01)
        note("end")
""".strip()


async def a_second_passes() -> None:
    """Signals that come closer together count as one."""
    until = time.monotonic() + 1.5
    await becomes_true(lambda: time.monotonic() > until)


async def test_no_worker_outlives_its_supervisor_though_it_holds_the_gil(
    shop: Shop, stage: Stage
) -> None:
    shop.change(1, "__import__('ctypes').PyDLL(None).sleep(600)")
    workers = shop.start(1, "--shutdown-timeout", "1")
    pid = workers.pid()
    await stage.publish("one")
    await becomes_true(lambda: len(shop.ledger()) == 1)
    workers.send(signal.SIGKILL)
    # The last two seconds are for a busy machine.
    await becomes_true(lambda: not is_alive(pid), 1 + 5 + 2)


async def test_a_second_signal_ends_all_at_once(shop: Shop, stage: Stage) -> None:
    # A signal ends one sleep, if it comes to the thread that sleeps.
    shop.change(1, "while True: __import__('ctypes').PyDLL(None).sleep(600)")
    workers = shop.start(2)
    pids = workers.pids()
    await stage.publish("one")
    await becomes_true(lambda: len(shop.ledger()) == 1)
    workers.send(signal.SIGTERM)
    workers.command.wait_for("Draining 2 workers")
    # The worker that is idle ends first; the other one never would.
    await becomes_true(lambda: sum(is_alive(pid) for pid in pids) == 1)

    def ends() -> bool:
        workers.send(signal.SIGTERM)
        return workers.command.has_ended

    await becomes_true(ends)
    assert workers.command.finish() == 143
    assert not any(is_alive(pid) for pid in pids)


async def test_a_stopped_worker_is_told_of_and_goes_on_when_it_is_continued(
    shop: Shop, stage: Stage
) -> None:
    workers = shop.start(2)
    stopped = workers.pid()
    kill(stopped, signal.SIGSTOP)
    workers.command.wait_for(f"The worker {stopped} is stopped by a signal")

    def silence() -> float:
        samples = workers.probes.samples()
        return max(samples.value("worker_heartbeat_seconds", worker=each) or 0 for each in "01")

    await becomes_true(lambda: silence() > 3)
    assert workers.probes.get("/livez").status == 200
    await becomes_true(lambda: "ready in 1 of 2" in workers.probes.get("/readyz").text)
    kill(stopped, signal.SIGCONT)
    await becomes_true(lambda: "ready in 2 of 2" in workers.probes.get("/readyz").text)
    assert stopped in workers.pids()
    workers.finish()


async def test_replacing_all_under_load_loses_nothing_and_runs_the_new_code(
    shop: Shop, stage: Stage
) -> None:
    workers = shop.start(2)
    old = workers.pids()
    published = 0
    shop.change(2)
    workers.send(signal.SIGHUP)
    async with asyncio.timeout(100):
        while not workers.command.lines_with("All workers are replaced."):
            await stage.publish(*range(published, published + 10))
            published += 10
            await becomes_true(lambda seen=published - 50: len(shop.ledger()) >= seen)
    workers.become_ready(without=old)
    assert not workers.command.has_ended
    await becomes_true(lambda: len(shop.ledger()) >= published)
    await stage.publish("last")
    await becomes_true(lambda: shop.ledger()[-1][2] == "last")
    payloads = [payload for _, _, payload, _ in shop.ledger()]
    assert sorted(payloads) == sorted([*map(str, range(published)), "last"]), "each once"
    assert shop.ledger()[-1][0] == "2"
    assert workers.starts("reload") == 2
    workers.finish()


async def test_new_code_that_cannot_begin_replaces_nobody(shop: Shop, stage: Stage) -> None:
    workers = shop.start(2)
    old = workers.pids()
    shop.project.write("shop/consumers.py", "def oops(:")
    workers.send(signal.SIGHUP)
    workers.command.wait_for("A new worker could not take its place")
    assert workers.command.lines_with("SyntaxError")
    assert workers.pids() == old
    assert workers.probes.is_ready()
    await stage.publish("one")
    await becomes_true(lambda: len(shop.ledger()) == 1)
    workers.finish()


async def test_workers_are_replaced_after_their_number_of_messages(
    shop: Shop, stage: Stage
) -> None:
    workers = shop.start(2, "--max-messages", "50")
    old = workers.pids()
    await stage.publish(*range(300))
    await becomes_true(lambda: len(shop.ledger()) == 300)
    workers.become_ready(without=old)
    assert workers.starts("max_messages") >= 2
    began = "is replaced (max_messages)"
    steps = [
        line for line in workers.command.output.splitlines() if began in line or "Drained" in line
    ]
    assert all(began in first and "Drained" in second for first, second in batched(steps))
    assert len({payload for _, _, payload, _ in shop.ledger()}) == 300
    workers.finish()


def batched(steps: list[str]) -> list[tuple[str, str]]:
    """Pairs; what has no second one yet is left out."""
    return list(zip(steps[::2], steps[1::2], strict=False))


async def test_a_worker_that_uses_too_much_memory_is_drained_before_the_next_one_starts(
    shop: Shop, stage: Stage
) -> None:
    shop.change(1, "globals().setdefault('hoard', []).append(bytearray(b'1' * (300 << 20)))")
    workers = shop.start(1, "--max-rss", "250")
    old = workers.pids()
    began = time.monotonic()
    # What it uses at the first look, after a minute, would not be held against it.
    await becomes_true(lambda: time.monotonic() > began + 70, 100)
    await stage.publish("one")
    workers.command.wait_for("is replaced (max_rss)")
    shop.change(1)
    workers.become_ready(without=old)
    lines = workers.command.output.splitlines()
    drained, second = lines.index("INFO nats_consumer.worker: Drained."), last(lines, "this is")
    assert drained < second
    assert workers.starts("max_rss") == 1


def last(lines: list[str], text: str) -> int:
    """The number of the last line with this text."""
    return max(number for number, line in enumerate(lines) if text in line)


async def test_workers_can_be_added_and_removed_by_signals(shop: Shop) -> None:
    workers = shop.start(1)
    workers.send(signal.SIGTTIN)
    await becomes_true(lambda: len(workers.pids()) == 2)
    workers.become_ready()
    first = workers.pids()
    workers.send(signal.SIGTTOU)
    await becomes_true(lambda: len(workers.pids()) == 1)
    assert workers.pids() < first
    workers.finish()


async def test_a_worker_whose_handler_hangs_in_c_shows_its_stacks_and_its_message(
    shop: Shop, stage: Stage
) -> None:
    shop.change(1, "__import__('ctypes').PyDLL(None).sleep(600)")
    workers = shop.start(1, "--shutdown-timeout", "1")
    await stage.publish("one")
    await becomes_true(lambda: len(shop.ledger()) == 1)
    workers.send(signal.SIGUSR1)
    sequence = (await stage.jetstream.stream_info(stage.stream)).state.last_seq
    workers.command.wait_for(f"Orders: message {sequence}, attempt 1, came")
    workers.command.wait_for("in handle_message")
    [pid] = workers.pids()
    assert workers.command.lines_with(f"nats_consumer {pid}: Orders consuming (")
    assert workers.command.lines_with(f"The worker {pid} writes its stacks to stderr.")
    assert workers.command.lines_with("slot 0: worker ")


async def test_a_worker_whose_engine_stands_still_shows_its_stacks_and_is_killed(
    shop: Shop, stage: Stage
) -> None:
    settings = shop.project.folder / "settings.py"
    settings.write_text(settings.read_text() + "NATS_CONSUMER['hung_after'] = 5\n")
    shop.change(1, STOPS_THE_ENGINE.strip())
    workers = shop.start(1)
    old = workers.pids()
    await stage.publish("one")
    await becomes_true(lambda: len(shop.ledger()) == 1)
    shop.change(1)
    workers.command.wait_for("has not reported for")
    workers.command.wait_for("in handle_message")
    workers.become_ready(without=old)
    assert workers.starts("hung") == 1
    workers.finish()


def test_workers_without_a_server_are_live_and_not_ready(
    make_project: Callable[..., Project], own_server: NatsServer
) -> None:
    text = consumers("orders")
    project = make_project(text, url=own_server.url)
    workers = Supervised(project, 2, "--setup")
    pids = workers.pids()
    own_server.kill()
    eventually(lambda: not workers.probes.is_ready())
    assert "Orders unreachable" in workers.probes.get("/readyz").text
    assert workers.probes.get("/livez").status == 200
    own_server.start()
    eventually(workers.probes.is_ready)
    assert workers.pids() == pids


PUBLISH = """
import sys
import django
django.setup()
from nats_consumer import publish
for payload in sys.argv[1:]:
    publish("orders.created", payload)
"""


def test_workers_share_the_embedded_server_which_ends_with_the_last_of_them(
    make_project: Callable[..., Project],
) -> None:
    project = make_project(consumers("orders"), url="embedded")
    workers = Supervised(project, 2, "--setup")
    victim = workers.pid()
    kill(victim)
    workers.become_ready(without={victim})
    project.write("publish.py", PUBLISH)
    command = project.run("publish.py", *map(str, range(20)))
    assert command.finish() == 0, command.output
    ledger = project.folder / "ledger"
    eventually(lambda: ledger.exists() and len(ledger.read_text().splitlines()) == 20)
    workers.finish()
    store = project.folder / ".nats"
    assert (store / "server.log").read_text().count("Server is ready") == 1
    eventually(lambda: not is_held(store / "server.lock"))


async def test_a_supervisor_runs_only_from_a_command_line(shop: Shop) -> None:
    shop.project.write(
        "program.py",
        """
        import django
        django.setup()
        from django.core.management import call_command
        call_command("nats_consumer", workers=2)
        """,
    )
    command = shop.project.run("program.py")
    assert command.finish() == 1
    assert "--workers runs this command line again" in command.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reload", "--workers", "2"), "--reload runs one process"),
        (("--max-messages", "5"), "--max-messages needs --workers"),
        (("--workers", "2", "--max-messages-jitter", "5"), "needs --max-messages"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    make_project: Callable[..., Project], arguments: tuple[str, ...], message: str
) -> None:
    text = consumers("orders")
    command = make_project(text).consume(*arguments)
    assert command.finish() == 1
    assert message in command.output
