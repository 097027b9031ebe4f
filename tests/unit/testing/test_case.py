"""The test cases of nats_consumer.testing, and what their assertions say."""

from typing import Any

import pytest
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from nats_consumer import ErrorAckBehavior, JetstreamPullConsumer, publish
from nats_consumer.testing import (
    NatsMixin,
    NatsTestCase,
    NatsTransactionTestCase,
    capture_published,
    outbox,
)


class Orders(JetstreamPullConsumer):
    """Refuses negative numbers."""

    stream_name = "orders"
    filter_subject = "orders.created"
    max_retries = 0
    handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER

    def handle_message(self, message: Any) -> None:
        """Fail at a negative number."""
        if message.json()["number"] < 0:
            raise ValueError("a negative number")


class AssertionTests(NatsMixin, SimpleTestCase):
    """Run by pytest as they are by Django."""

    consumers = [Orders]

    def test_what_was_published_is_found_by_subject_data_and_headers(self) -> None:
        publish("orders.created", {"number": 7}, headers={"Source": "shop"})
        publish("orders.created", b"raw")
        self.assertPublished("orders.*", count=2)
        self.assertPublished("orders.created", {"number": 7}, headers={"Source": "shop"}, count=1)
        [raw] = self.assertPublished("orders.created", b"raw")
        assert raw.data == b"raw"

    def test_a_failure_shows_what_was_published_nearest_first(self) -> None:
        publish("orders.paid", {"number": 8})
        publish("orders.created", {"number": 7})
        with pytest.raises(AssertionError) as caught:
            self.assertPublished("orders.created", {"number": 9})
        first, *rest = str(caught.value).splitlines()
        assert first == (
            "one message or more to orders.created with b'{\"number\": 9}' should have been "
            "published, and 0 matched of:"
        )
        assert ["orders.created" in each for each in rest] == [True, False]

    def test_nothing_published_is_asserted(self) -> None:
        self.assertNothingPublished()
        publish("orders.created", {"number": 7})
        with pytest.raises(AssertionError, match=r"These were published:\n  .*orders\.created"):
            self.assertNothingPublished()

    def test_a_failure_shows_the_attempts(self) -> None:
        publish("orders.created", {"number": -1})
        self.nats.run()
        with pytest.raises(AssertionError, match=r"attempt 1 at orders.created: .*ValueError: a n"):
            self.assertHandled(Orders)

    def test_what_was_handled_and_what_was_kept_is_counted(self) -> None:
        for number in (7, -1, 8):
            publish("orders.created", {"number": number})
        self.nats.run()
        assert len(self.assertHandled(Orders, count=2)) == 2
        [letter] = self.assertDeadLettered(Orders, reason="exhausted", count=1)
        assert letter.error == "ValueError: a negative number"
        with pytest.raises(AssertionError, match=r"2 messages because of 'card'.*\n  .*exhausted"):
            self.assertDeadLettered(Orders, reason="card", count=2)

    def test_the_outbox_of_the_run_is_empty_at_first(self) -> None:
        assert outbox == []

    def test_a_capture_inside_a_test_takes_the_messages(self) -> None:
        with capture_published() as published:
            publish("orders.created", b"")
        assert len(published) == 1
        self.assertNothingPublished()


def test_the_cases_are_those_of_django() -> None:
    assert issubclass(NatsTestCase, TestCase)
    assert issubclass(NatsTransactionTestCase, TransactionTestCase)
    assert not issubclass(NatsTransactionTestCase, TestCase)
