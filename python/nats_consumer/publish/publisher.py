"""The publishers of this process: each is one connection for all its threads and event loops."""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nats_consumer.api import PubAck
from nats_consumer.connect.args import connect_options
from nats_consumer.connect.log import carry_logs
from nats_consumer.connect.resolve import resolve
from nats_consumer.settings import (
    DEFAULT_CONNECTION,
    check_connection,
    is_test_run,
    publishes_in_tests,
)

from .drafts import Draft

if TYPE_CHECKING:
    from nats_consumer._native import Drafts, Msg

# By process id, connection, and whether it keeps the order: after a fork the connections are the
# parent's.
_publishers: dict[tuple[int, str, bool], "Publisher"] = {}
# Makes the publisher of a connection in test runs that publish nothing.
_in_test_runs: "Callable[[str], Publisher] | None" = None
# By process id: what a test has put in place.
_substitutes: dict[int, "_Substitute"] = {}


@dataclass(frozen=True)
class _Substitute:
    """`make` makes a test's publisher of a connection. `held` hears of each database in which
    something waits for its commit; None, if rows of an outbox are not wanted."""

    make: Callable[[str], "Publisher"]
    held: Callable[[str], None] | None = None


class Publisher(Protocol):
    """Sends drafts: the engine's publisher, or a test's."""

    def publish(self, draft: Draft, timeout: float) -> PubAck:
        """Send it and wait for its confirmation."""

    def apublish(self, draft: Draft, timeout: float) -> Awaitable[PubAck]:
        """publish() for async code."""

    def request(self, draft: Draft, timeout: float) -> "Msg":
        """Send it and wait for an answer."""

    def arequest(self, draft: Draft, timeout: float) -> "Awaitable[Msg]":
        """request() for async code."""

    def nudge(self, subject: str) -> None:
        """Send an empty message without waiting; it may be lost."""

    def max_payload(self) -> int | None:
        """The largest message that the server takes, in bytes, if it is known without waiting."""

    def publish_many(
        self, drafts: "Drafts", timeout: float
    ) -> tuple[list[PubAck], list[tuple[int, Exception]]]:
        """Send all of them; returns the confirmations, and the errors with their numbers."""


def current_publisher(using: str = DEFAULT_CONNECTION, *, in_order: bool = False) -> Publisher:
    """The publisher of this process for a connection, made on first use. Blocking. The one that is
    `in_order` never sends what a lost connection has left behind, so that what failed can be
    published again in its order; its publish_many() says PublishTimeout only of messages that the
    server has read, and Disconnected where nothing is known."""
    place = os.getpid(), using, in_order
    kept = _publishers.get(place)
    if kept is None:
        # Two threads at once make two and keep one; the other has not connected yet.
        kept = _publishers.setdefault(place, _made(using, in_order))
    return kept


def _made(using: str, in_order: bool) -> Publisher:
    if substitute := _substitutes.get(os.getpid()):
        return substitute.make(check_connection(using))
    if _in_test_runs and is_test_run() and not publishes_in_tests():
        return _in_test_runs(check_connection(using))
    # On first use: every management command imports this module.
    from nats_consumer import _native

    publisher = _native.Publisher(resolve(connect_options(using=using)), in_order=in_order)
    carry_logs(_native.take_logs, _native.wake_logs)
    return publisher


def replace_in_test_runs(make: "Callable[[str], Publisher]") -> None:
    """Use what `make` makes for an alias in test runs, if the settings say that they publish
    nothing."""
    global _in_test_runs
    _in_test_runs = make


def captures_rows() -> bool:
    """Whether a test captures what this process publishes, also what would be a row."""
    substitute = _substitutes.get(os.getpid())
    return substitute is not None and substitute.held is None


def note_held(database: str) -> None:
    """Tell a test that something waits in this database for its commit."""
    substitute = _substitutes.get(os.getpid())
    if substitute is not None and substitute.held is not None:
        substitute.held(database)


def is_open(using: str) -> bool:
    """Whether this process has a publisher for the connection already."""
    return (os.getpid(), using, False) in _publishers


@contextmanager
def replaced_by(
    make: Callable[[str], Publisher], held: Callable[[str], None] | None = None
) -> Iterator[None]:
    """In the body, everything that this process publishes over a connection goes to what `make`
    makes for its alias. With `held`, publish_on_commit() writes rows where the outbox is
    installed; `held` is called with the alias of each database where something waits."""
    pid = os.getpid()
    before, outer = _taken(pid), _substitutes.get(pid)
    _substitutes[pid] = _Substitute(make, held)
    try:
        yield
    finally:
        del _substitutes[pid]
        if outer is not None:
            _substitutes[pid] = outer
        _taken(pid)
        _publishers.update(before)


def _taken(pid: int) -> dict[tuple[int, str, bool], Publisher]:
    """The publishers of a process, which has none afterwards."""
    return {place: _publishers.pop(place) for place in list(_publishers) if place[0] == pid}
