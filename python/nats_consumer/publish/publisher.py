"""The publisher of this process: one connection for all its threads and event loops."""

import os
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from nats_consumer.api import PubAck
from nats_consumer.connect.args import connect_options
from nats_consumer.connect.log import carry_logs
from nats_consumer.connect.resolve import resolve

from .drafts import Draft

if TYPE_CHECKING:
    from nats_consumer._native import Drafts

# By process id: after a fork the connection is the parent's.
_publishers: dict[int, "Publisher"] = {}


class Publisher(Protocol):
    """Sends drafts: the engine's publisher, or a test's."""

    def publish(self, draft: Draft, timeout: float) -> PubAck:
        """Send it and wait for its confirmation."""

    def apublish(self, draft: Draft, timeout: float) -> Awaitable[PubAck]:
        """publish() for async code."""

    def nudge(self, subject: str) -> None:
        """Send an empty message without waiting; it may be lost."""

    def publish_many(
        self, drafts: "Drafts", timeout: float
    ) -> tuple[list[PubAck], list[tuple[int, Exception]]]:
        """Send all of them; returns the confirmations, and the errors with their numbers."""


def current_publisher() -> Publisher:
    """The publisher of this process, made on first use. Blocking."""
    pid = os.getpid()
    kept = _publishers.get(pid)
    if kept is None:
        # On first use: every management command imports this module.
        from nats_consumer import _native

        # Two threads at once make two and keep one; the other has not connected yet.
        options = resolve(connect_options({}))
        kept = _publishers.setdefault(pid, _native.Publisher(options))
        carry_logs(_native.take_logs, _native.wake_logs)
    return kept


def is_replaced() -> bool:
    """Whether a test captures what this process publishes."""
    from nats_consumer import _native

    kept = _publishers.get(os.getpid())
    return kept is not None and not isinstance(kept, _native.Publisher)


def is_open() -> bool:
    """Whether this process has a publisher already."""
    return os.getpid() in _publishers


@contextmanager
def replaced_by(substitute: Publisher) -> Iterator[None]:
    """In the body, everything that this process publishes goes to `substitute`."""
    pid = os.getpid()
    before = _publishers.get(pid)
    _publishers[pid] = substitute
    try:
        yield
    finally:
        del _publishers[pid]
        if before is not None:
            _publishers[pid] = before
