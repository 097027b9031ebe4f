"""The end of the show: do the server and the database tell the same story?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shop import events, payments

from .colour import green, red
from .facts import DEAD_LETTERS, DeadLetter, Facts


@dataclass(frozen=True)
class Check:
    """Two numbers from different places that must be the same."""

    sentence: str
    left: int
    right: int

    @property
    def holds(self) -> bool:
        """Whether they are."""
        return self.left == self.right


def checks(cards: Counter[str], facts: Facts, dead: Sequence[DeadLetter], code: int) -> list[Check]:
    """Return the checks that must hold once the orders with these `cards` went through and the
    worker has ended with this exit code."""
    published, database = facts.published, facts.database
    charges = facts.consumers["ChargeCards"]
    unsettled = sum(c.waiting + c.in_flight for c in facts.consumers.values())
    placed = cards.total()
    return [
        Check("orders placed, orders.created (server)", placed, published[events.CREATED]),
        Check("orders placed, orders (database)", placed, database.orders),
        Check("events left in the outbox, none expected", facts.unpublished, 0),
        Check("orders placed, counted for customers (database)", placed, database.counted_orders),
        Check("orders placed, search entries (database)", placed, database.search_entries),
        Check("cents ordered, counted (database)", database.order_cents, database.counted_cents),
        Check(
            "orders placed, paid (database) + dead letters (server)",
            placed,
            database.paid_orders + len(dead),
        ),
        Check("stolen cards, dead letters (server)", cards[payments.STOLEN_CARD], len(dead)),
        Check(
            "orders paid (database), orders.paid (server)",
            database.paid_orders,
            published.get(events.PAID, 0),
        ),
        Check(
            "events (server), milestones (database)",
            sum(published.values()),
            database.created + database.paid + database.shipped,
        ),
        Check(
            "ChargeCards: deliveries (server), attempts (database)",
            charges.deliveries,
            database.attempts,
        ),
        Check(
            "ChargeCards: retries (server), later attempts (database)",
            charges.retried,
            database.retries,
        ),
        Check("waiting or in flight (server), none expected", unsettled, 0),
        Check("exit code of the worker, 0 expected", code, 0),
    ]


def report(facts: Facts, dead: Sequence[DeadLetter], results: Sequence[Check]) -> str:
    """The summary, for people."""
    database = facts.database
    lines = [
        "",
        "Read back from the server and the database, after the worker has ended:",
        "",
        f"  server        {_events(facts)}",
        f"  database      {database.orders:,} orders, {database.shipped:,} shipped, "
        f"{database.attempts:,} payment attempts ({database.failed_attempts:,} failed)",
        f"  dead letters  {len(dead)} in stream {DEAD_LETTERS}",
        *(
            f"                order {letter.order}, {letter.deliveries} attempts by "
            f"{letter.consumer}\n                {letter.error or letter.reason}"
            for letter in dead
        ),
        "",
        *(_verdict(check) for check in results),
        "",
    ]
    failed = len([check for check in results if not check.holds])
    if failed:
        lines.append(red(f"The server and the database do not agree: {failed} of these differ."))
    else:
        lines.append(green("The server and the database agree: no order lost, none counted twice."))
    return "\n".join(lines)


def _events(facts: Facts) -> str:
    subjects = (events.CREATED, events.PAID, events.SHIPPED)
    return ", ".join(f"{facts.published.get(subject, 0):,} {subject}" for subject in subjects)


def _verdict(check: Check) -> str:
    mark, sign = (green("✓"), "=") if check.holds else (red("✗"), "≠")
    return f"  {mark} {check.left:>7,} {sign} {check.right:<7,} {check.sentence}"
