"""The whole of a fault test: servers, workers, producers, what happens to them, and the ledgers."""

import json
import logging
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.command import Command
from tests.faults.support.checker import Report, check
from tests.faults.support.ledgers import Fault, Handled, Ledgers, Policy, Step, Stop, tries
from tests.faults.support.witness import ADVISORIES, Witness
from tests.waiting import eventually

logger = logging.getLogger(__name__)

PROJECT = Path(__file__).parent / "shop"
STREAM = "orders"
GRACE = 5.0
QUIET = 60.0
TABLE = 'CREATE TABLE orders_effect (id integer PRIMARY KEY, consumer varchar, "order" varchar)'
ROWS = 'SELECT consumer, "order", COUNT(*) FROM orders_effect GROUP BY 1, 2'


class Worker:
    """A `manage.py nats_consumer` process."""

    def __init__(self, command: Command, consumers: Sequence[str]) -> None:
        self.command = command
        self.consumers = consumers
        self.pid = command.pid

    def is_ready(self) -> "Worker":
        """Wait until every consumer consumes."""
        for consumer in self.consumers:
            self.command.wait_for(f"{consumer}: consuming", timeout=30)
        return self

    def resources(self) -> dict[str, int]:
        """How many threads and file descriptors the process has."""
        process = Path(f"/proc/{self.pid}")
        return {name: len(list((process / name).iterdir())) for name in ("task", "fd")}


class Stage:
    """One stream, `orders`, and everything that happens to it in one test.

    Workers and producers reach the servers at `urls`, which may be proxies; the witness asks the
    servers themselves. `attributes` are those of every consumer of this stage.
    """

    def __init__(self, folder: Path, witness: Witness, urls: Sequence[str], seed: int = 0) -> None:
        self.folder = folder
        self.witness = witness
        self.urls = list(urls)
        self.seed = seed
        self.attributes: dict[str, Any] = {
            "filter_subject": f"{STREAM}.>",
            "ack_wait": 3.0,
            "max_retries": 2,
            "initial_retry_delay": 0.2,
            "max_retry_delay": 1.0,
        }
        self.connect: dict[str, Any] = {"ping_interval": 2}
        self.event_loop = "asyncio"
        self.database: dict[str, Any] = _sqlite(folder / "shop.sqlite3")
        self.workers: list[Worker] = []
        self.faults: list[Fault] = []
        self.stops: list[Stop] = []
        self._commands: list[Command] = []
        self._handled = Handled(folder)
        self._began = time.monotonic()

    def create(self, replicas: int = 1) -> None:
        """Create the stream, and the one that keeps the server's advisories."""
        self.witness.create_stream(STREAM, num_replicas=replicas)
        self.witness.keep_advisories(replicas)

    def work(self, *consumers: str, **attributes: Any) -> Worker:
        """Start a worker; it need not be ready yet."""
        options = ["--shutdown-timeout", str(GRACE), "--event-loop", self.event_loop]
        command = self.run("manage.py", "nats_consumer", *consumers, *options, **attributes)
        worker = Worker(command, consumers)
        self.workers.append(worker)
        return worker

    def produce(
        self, count: int, rate: float = 300, mix: Sequence[Any] = (), name: str = "p"
    ) -> Command:
        """Start a producer. `mix` has a weight and an order for each kind of orders."""
        options = {"count": count, "rate": rate, "mix": json.dumps(list(mix)), "producer": name}
        arguments = [f"--{option}={value}" for option, value in options.items()]
        return self.run("manage.py", "produce", f"--seed={self.seed}", *arguments)

    def run(self, *program: str, **attributes: Any) -> Command:
        """Start `python <program>` in the project."""
        command = Command(*program, folder=PROJECT, environment=self.environment(**attributes))
        self._commands.append(command)
        return command

    def environment(self, **attributes: Any) -> dict[str, str]:
        """Return the variables that the project's settings and consumers read."""
        return {
            "DJANGO_SETTINGS_MODULE": "settings",
            "FAULTS_FOLDER": str(self.folder),
            "FAULTS_STREAM": STREAM,
            "FAULTS_DATABASE": json.dumps(self.database),
            "FAULTS_CONNECT": json.dumps({"servers": self.urls, **self.connect}),
            "FAULTS_ATTRIBUTES": json.dumps({**self.attributes, **attributes}),
        }

    @contextmanager
    def fault(self, kind: str, pid: int | None = None, forgets: bool = True) -> Iterator[None]:
        """Note the body as a fault, which is over at its end.

        A worker has no part in how the server counts; what else `forgets` nothing says so.
        """
        forgets = forgets and pid is None
        began = time.monotonic()
        try:
            yield
        finally:
            self.faults.append(Fault(kind, began, time.monotonic(), pid, forgets=forgets))

    def kill(self, worker: Worker) -> None:
        """SIGKILL."""
        with self.fault("SIGKILL", worker.pid):
            worker.command.end()

    @contextmanager
    def frozen(self, worker: Worker) -> Iterator[None]:
        """SIGSTOP, and SIGCONT: what the worker holds meanwhile goes to others after `ack_wait`."""
        with self.fault("SIGSTOP", worker.pid):
            worker.command.interrupt(signal.SIGSTOP)
            try:
                yield
            finally:
                worker.command.interrupt(signal.SIGCONT)

    def stop(self, worker: Worker, timeout: float = GRACE + 20) -> Stop:
        """SIGTERM, and wait for the end."""
        asked = time.monotonic()
        worker.command.interrupt()
        code = worker.command.finish(timeout)
        stop = Stop(worker.pid, asked, time.monotonic(), GRACE, code)
        self.faults.append(
            Fault("SIGTERM", asked, stop.gone, worker.pid, loses_acks=False, forgets=False)
        )
        self.stops.append(stop)
        return stop

    def handled(self, event: str = "DONE") -> list[Step]:
        """The steps of this kind that are in the ledger of the handlers."""
        return [step for step in self._handled.steps() if step.event == event]

    def reaches(self, event: str, count: int, within: float = 30) -> None:
        """Wait until this number of steps of this kind is in the ledger."""
        eventually(lambda: len(self.handled(event)) >= count, within, self.story)

    def goes_on(self, within: float = 30) -> None:
        """Wait until ten more orders are handled."""
        self.reaches("DONE", len(self.handled()) + 10, within)

    @staticmethod
    def passes(seconds: float) -> None:
        """Let time pass: how long a fault lasts is part of it."""
        time.sleep(seconds)

    def settled(self, *durables: str, timeout: float = QUIET) -> None:
        """Wait until the server has nothing left to deliver and misses no settlement."""
        eventually(lambda: not any(self.lag(*durables).values()), timeout, self.story)

    def lag(self, *durables: str) -> dict[str, int]:
        """By durable: what the server has not delivered, or has no settlement of."""
        infos = {name: self.witness.consumer(STREAM, name) for name in durables}
        return {name: info["num_pending"] + info["num_ack_pending"] for name, info in infos.items()}

    def ledgers(self, *durables: str, effects: Counter[tuple[str, str]] | None = None) -> Ledgers:
        """Everything that is known; `effects` where the database is not the stage's own."""
        return Ledgers(
            policy=Policy(
                ack_wait=self.attributes["ack_wait"],
                attempts=self.attributes["max_retries"] + 1,
                longest_retry=self.attributes["max_retry_delay"],
            ),
            published=tries(self.folder),
            handled=self._handled.steps(),
            stream=self.witness.messages(STREAM),
            dead=self.witness.messages(f"{STREAM}-dlq"),
            ended=self._ended(),
            lag=self.lag(*durables),
            effects=self.effects() if effects is None else effects,
            faults=self.faults,
            stops=self.stops,
        )

    def check(self, *durables: str, effects: Counter[tuple[str, str]] | None = None) -> Report:
        """Fails, with the seed and what happened, if an invariant does not hold."""
        report = check(self.ledgers(*durables, effects=effects))
        logger.info("%s", report)
        assert not report.violations, f"{report}\n{self.story()}"
        return report

    def effects(self) -> Counter[tuple[str, str]]:
        """How many rows each consumer left in the database for each order."""
        with closing(sqlite3.connect(self.database["NAME"])) as database:
            rows = database.execute(ROWS).fetchall()
        return Counter({(consumer, order): count for consumer, order, count in rows})

    def story(self) -> str:
        """The seed, the faults in their order, and the last words of the workers."""
        faults = [self._line(fault) for fault in sorted(self.faults, key=lambda each: each.began)]
        last = [f"--- {each.pid}:\n{each.output[-3000:]}" for each in self._commands]
        started = f"{self._began:.2f} on the clock of the ledgers in {self.folder}"
        return "\n".join([f"seed {self.seed}; 0 s is {started}", *faults, *last])

    def end(self) -> None:
        """End what still runs."""
        for command in self._commands:
            command.end()

    def _line(self, fault: Fault) -> str:
        whom = f" of {fault.pid}" if fault.pid else ""
        began, healed = fault.began - self._began, fault.healed - self._began
        return f"  {began:7.2f} to {healed:7.2f} s: {fault.kind}{whom}"

    def _ended(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for message in self.witness.messages(ADVISORIES):
            if ".MSG_TERMINATED." in message.subject:
                advisory = json.loads(message.payload)
                found.setdefault(advisory["consumer"], set()).add(advisory["stream_seq"])
        return found


def _sqlite(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(TABLE)
    options = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA synchronous=OFF",
    }
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": options}
