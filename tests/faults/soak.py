"""`python -m tests.faults.soak --minutes 10 --seed 7`: a random mix of faults, then the checker.

A run is rounds of a minute: a quarter of them calm, the others with some faults one after the
other, each healed before the next. At the end of each round everything has to be settled, and the
ledgers of the whole run are compared.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.command import Command
from tests.faults.support.nodes import Node
from tests.faults.support.proxy import DOWN, UP, Proxy
from tests.faults.support.stage import Stage, Worker
from tests.faults.support.witness import Witness
from tests.waiting import eventually

CONSUMERS = ("Pulled", "Pushed", "PulledInThreads")
RATE = 100
SECONDS = 60
NOTICED = 15.0
CALM = 0.25
MIX = [
    [90, {"seconds": 0.005}],
    [5, {"do": "fail", "attempts": 1}],
    [1, {"do": "fail", "attempts": 99}],
    [1, {"do": "give up"}],
    [3, {"seconds": 1.0}],
]


class Soak:
    """One server behind a proxy, two workers, a producer, and dice."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.node = Node(folder / "node")
        self.node.start()
        self.proxy = Proxy(self.node.url)
        (folder / "stage").mkdir()
        self.stage = Stage(folder / "stage", Witness([self.node.url]), [self.proxy.url], seed)
        self.stage.attributes |= {"concurrency": 10, "ack_wait": 5.0}
        self.stage.create()
        self.faults: list[tuple[str, Callable[[], None]]] = [
            ("server killed", self._kill_the_server),
            ("server frozen", self._freeze_the_server),
            ("cut", self.proxy.cut),
            ("cut within a frame", self._cut_within_a_frame),
            ("half open", self._half_open),
            ("silence", self._silence),
            ("delay", self._delay),
            ("acks dropped", self._drop_acknowledgements),
            ("worker killed", self._kill_a_worker),
            ("worker stopped", self._stop_a_worker),
        ]

    def run(self, minutes: float) -> None:
        """As many rounds as fit."""
        stage = self.stage
        for _ in range(2):
            stage.work(*CONSUMERS).is_ready()
        end = time.monotonic() + minutes * SECONDS
        number = 0
        while time.monotonic() < end:
            self._round(f"round{number}")
            number += 1
        for worker in self._alive():
            stage.stop(worker)
        print(f"{number} rounds, {len(stage.faults)} faults; {stage.check(*CONSUMERS)}")

    def end(self) -> None:
        """End everything."""
        self.stage.end()
        self.proxy.close()
        self.node.kill()

    def _round(self, name: str) -> None:
        producer = self.stage.produce(RATE * SECONDS, rate=RATE, mix=MIX, name=name)
        chosen = self.dice.sample(self.faults, self.dice.randint(1, 4))
        if self.dice.random() < CALM:
            chosen = []
        print(f"{name}: {', '.join(kind for kind, _ in chosen) or 'calm'}", flush=True)
        for kind, harm in chosen:
            if producer.has_ended:
                break
            self.stage.passes(self.dice.uniform(0.5, 3))
            self._happens(kind, harm)
            self._goes_on(producer)
        code = producer.finish(timeout=SECONDS * 3)
        assert code == 0, producer.output
        self.stage.settled(*CONSUMERS)
        self.stage.check(*CONSUMERS)

    def _goes_on(self, producer: Command) -> None:
        """Wait until ten more orders are handled, or none comes any more."""
        wanted = len(self.stage.handled()) + 10
        eventually(
            lambda: producer.has_ended or len(self.stage.handled()) >= wanted, 40, self.stage.story
        )

    def _happens(self, kind: str, harm: Callable[[], None]) -> None:
        if kind.startswith("worker"):
            harm()  # it is written down as the fault of that worker alone
            return
        with self.stage.fault(kind, forgets=kind == "server killed"):
            harm()

    def _kill_the_server(self) -> None:
        self.node.kill()
        self.stage.passes(self.dice.uniform(0, 8))
        self.node.start()

    def _freeze_the_server(self) -> None:
        with self.node.frozen():
            self.stage.passes(self.dice.uniform(0.5, 15))

    def _cut_within_a_frame(self) -> None:
        self.proxy.cut_after(self.dice.choice([UP, DOWN]), self.dice.randrange(1, 5000))
        self.stage.goes_on()

    def _half_open(self) -> None:
        self.proxy.half_open()
        # Until the clients notice it, what they send is lost.
        eventually(lambda: not self.proxy.forsaken, NOTICED)

    def _silence(self) -> None:
        ways = self.dice.choice([(UP,), (DOWN,), (UP, DOWN)])
        with self.proxy.blackhole(*ways):
            self.stage.passes(self.dice.uniform(0.5, 12))

    def _delay(self) -> None:
        with self.proxy.delay(self.dice.uniform(0.01, 0.3)):
            self.stage.passes(self.dice.uniform(1, 5))

    def _drop_acknowledgements(self) -> None:
        with self.proxy.dropping(UP, rb"^PUB \$JS\.ACK\..*\+ACK"):
            self.stage.passes(self.dice.uniform(0.2, 2))

    def _kill_a_worker(self) -> None:
        self.stage.kill(self.dice.choice(self._alive()))
        self.stage.work(*CONSUMERS).is_ready()

    def _stop_a_worker(self) -> None:
        self.stage.stop(self.dice.choice(self._alive()))
        self.stage.work(*CONSUMERS).is_ready()

    def _alive(self) -> list[Worker]:
        return [worker for worker in self.stage.workers if not worker.command.has_ended]


def main() -> int:
    """Run as long as asked; says the seed first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(folder, options.seed)
    try:
        soak.run(options.minutes)
    except AssertionError as error:
        print(f"{error}\nThe ledgers are kept in {folder}.")
        return 1
    finally:
        soak.end()
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
