"""The live view: a table that is redrawn on a terminal, one line a second elsewhere."""

import shutil
import sys
import time
from collections import deque
from typing import TextIO

from shop import events

from .colour import bold
from .facts import ConsumerFacts, Facts

_RATE_SECONDS = 2.0
_LINE_SECONDS = 1.0
_BAR_WIDTH = 40
_COLUMNS = {
    "received": 9,
    "handled": 8,
    "retried": 8,
    "in flight": 10,
    "waiting": 8,
    "dead": 5,
    "msg/s": 7,
}


class Board:
    """Shows facts as they change. `orders` is how many orders will be placed."""

    def __init__(self, orders: int, output: TextIO = sys.stdout) -> None:
        self._orders = orders
        self._output = output
        self._is_terminal = output.isatty()
        self._started = time.monotonic()
        self._line_due = 0.0
        self._drawn = 0
        self._history: deque[tuple[float, dict[str, int]]] = deque()

    def show(self, facts: Facts) -> None:
        """Show the facts, at once on a terminal, at most once a second elsewhere."""
        now = time.monotonic()
        self._remember(now, facts)
        if self._is_terminal:
            self._draw([*self._table(facts), "", "Ctrl-C stops"])
        elif now >= self._line_due:
            self._line_due = now + _LINE_SECONDS
            print(self._line(facts), file=self._output, flush=True)

    def finish(self, facts: Facts) -> None:
        """Show the last facts and leave them there."""
        self._line_due = 0.0
        self.show(facts)
        if self._is_terminal:
            self._draw(self._table(facts))

    def _remember(self, now: float, facts: Facts) -> None:
        handled = {name: consumer.handled for name, consumer in facts.consumers.items()}
        self._history.append((now, handled))
        while now - self._history[0][0] > _RATE_SECONDS:
            self._history.popleft()

    def _rate(self, name: str) -> float:
        (start, before), (end, after) = self._history[0], self._history[-1]
        return (after[name] - before[name]) / (end - start) if end > start else 0.0

    def _draw(self, lines: list[str]) -> None:
        width = shutil.get_terminal_size().columns - 1
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        heading, *rest = (f"{line[:width]}\x1b[K" for line in lines)
        body = "\n".join([bold(heading), *rest, ""])
        self._output.write(up + body + "\x1b[J")
        self._output.flush()
        self._drawn = len(lines)

    def _table(self, facts: Facts) -> list[str]:
        database = facts.database
        return [
            " " * 24 + "".join(f"{heading:>{width}}" for heading, width in _COLUMNS.items()),
            *(self._row(consumer) for consumer in facts.consumers.values()),
            "",
            f"database   {database.orders:,} orders   {database.paid:,} paid   "
            f"{database.shipped:,} shipped   {database.failed_attempts:,} payments failed",
            f"{self._bar(database.shipped)} {database.shipped:,} of {self._orders:,} shipped, "
            f"{self._seconds():.0f} s",
        ]

    def _row(self, consumer: ConsumerFacts) -> str:
        numbers = (
            consumer.deliveries,
            consumer.handled,
            consumer.retried,
            consumer.in_flight,
            consumer.waiting,
            consumer.dead,
            self._rate(consumer.name),
        )
        cells = zip(numbers, _COLUMNS.values(), strict=True)
        return f"{consumer.name:12} {consumer.lane:10} " + "".join(
            f"{number:>{width},.0f}" for number, width in cells
        )

    def _bar(self, done: int) -> str:
        filled = min(_BAR_WIDTH, done * _BAR_WIDTH // max(1, self._orders))
        return "█" * filled + "░" * (_BAR_WIDTH - filled)

    def _line(self, facts: Facts) -> str:
        consumers = facts.consumers.values()
        return (
            f"{self._seconds():5.1f} s  published {facts.published.get(events.CREATED, 0):,}  "
            f"received {sum(c.deliveries for c in consumers):,}  "
            f"handled {sum(c.handled for c in consumers):,}  "
            f"retried {sum(c.retried for c in consumers):,}  "
            f"in flight {sum(c.in_flight for c in consumers):,}  "
            f"waiting {sum(c.waiting for c in consumers):,}  "
            f"dead {sum(c.dead for c in consumers):,}  "
            f"{sum(map(self._rate, facts.consumers)):,.0f} msg/s"
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._started
