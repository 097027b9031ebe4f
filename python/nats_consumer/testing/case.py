"""Django test cases with a server in memory: `self.nats`."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.test import TestCase, TransactionTestCase

from .capture import Published, outbox
from .check import check_attempts, check_letters, check_published, lines
from .nats import Nats

if TYPE_CHECKING:
    from nats_consumer._native import StoredLetter
    from nats_consumer.api import StreamConfig
    from nats_consumer.consumer import NatsConsumer

    from .model.attempts import Attempt


class NatsMixin:
    """Gives a test case of Django `self.nats`, a Nats of its own for each test, and assertions. Put
    it before the test case: `class OrderTests(NatsMixin, SimpleTestCase)`. A setUp() of yours
    calls super().setUp() first.

    `consumers` are the consumers that get messages, by default all of the project; `streams` are
    configurations of streams, by default those that the consumers declare."""

    consumers: "Iterable[type[NatsConsumer]] | None" = None
    streams: "Iterable[StreamConfig] | None" = None
    nats: Nats

    def setUp(self) -> None:
        """Put a server in memory in place until the end of the test."""
        test: Any = self
        super().setUp()  # type: ignore[misc]
        outbox.clear()
        self.nats = test.enterContext(Nats(self.consumers, self.streams).in_use())

    def assertPublished(  # noqa: N802
        self,
        subject: str,
        data: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        count: int | None = None,
    ) -> list[Published]:
        """Fail unless the code published a message to the subject, which may have wildcards, and
        return those that match. `data` is compared as JSON or as bytes, `headers` must be among
        those of the message. `count` is how many match; by default one or more."""
        return check_published(self.nats.published, subject, data, headers, count)

    def assertNothingPublished(self) -> None:  # noqa: N802
        """Fail if the code published anything."""
        if self.nats.published:
            raise AssertionError(f"These were published:\n{lines(self.nats.published)}")

    def assertHandled(  # noqa: N802
        self, consumer: "type[NatsConsumer]", *, count: int | None = None
    ) -> "list[Attempt]":
        """Fail unless the consumer acknowledged messages: `count` of them, by default one or more.
        Returns those attempts."""
        return check_attempts(self.nats.attempts, consumer, count)

    def assertDeadLettered(  # noqa: N802
        self, consumer: "type[NatsConsumer]", *, reason: str = "", count: int | None = None
    ) -> "list[StoredLetter]":
        """Fail unless the consumer has dead letters whose reason contains the text: `count` of
        them, by default one or more. Returns them."""
        letters = self.nats.dead_letters(consumer)
        return check_letters(letters, self.nats.attempts, consumer, reason, count)


class NatsTestCase(NatsMixin, TestCase):
    """A TestCase with `self.nats`. run() publishes what publish_on_commit() holds, although the
    transaction around the test never commits."""


class NatsTransactionTestCase(NatsMixin, TransactionTestCase):
    """A TransactionTestCase with `self.nats`: transactions commit, and publish when they do."""
