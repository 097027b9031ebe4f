"""The end of the show: do the server and the database tell the same story?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shop import events, payments

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
    """What must hold once the orders with these `cards` went through the shop and the worker has
    ended with this exit code."""
    published, database = facts.published, facts.database
    charges = facts.consumers["ChargeCards"]
    unsettled = sum(c.waiting + c.in_flight for c in facts.consumers.values())
    return [
        Check("placed, and orders.created on the server", cards.total(), published[events.CREATED]),
        Check("placed, and orders in the database", cards.total(), database.orders),
        Check(
            "placed, and paid in the database or dead letters on the server",
            cards.total(),
            database.paid_orders + len(dead),
        ),
        Check("stolen cards, and dead letters", cards[payments.STOLEN_CARD], len(dead)),
        Check(
            "paid in the database, and orders.paid on the server",
            database.paid_orders,
            published.get(events.PAID, 0),
        ),
        Check(
            "events on the server, and milestones in the database",
            sum(published.values()),
            database.created + database.paid + database.shipped,
        ),
        Check(
            "deliveries to ChargeCards, and payment attempts in the database",
            charges.deliveries,
            database.attempts,
        ),
        Check(
            "retries by the server, and later attempts in the database",
            charges.retried,
            database.retries,
        ),
        Check("waiting or in flight on the server", unsettled, 0),
        Check("exit code of the worker", code, 0),
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
    failed = [check for check in results if not check.holds]
    if failed:
        lines.append(f"The server and the database do NOT agree: {len(failed)} of these differ.")
    else:
        lines.append(
            "The server and the database agree: no order was lost, none was counted twice."
        )
    return "\n".join(lines)


def _events(facts: Facts) -> str:
    subjects = (events.CREATED, events.PAID, events.SHIPPED)
    return ", ".join(f"{facts.published.get(subject, 0):,} {subject}" for subject in subjects)


def _verdict(check: Check) -> str:
    mark, sign = ("✓", "=") if check.holds else ("✗", "≠")
    return f"  {mark} {check.left:>7,} {sign} {check.right:<7,} {check.sentence}"
