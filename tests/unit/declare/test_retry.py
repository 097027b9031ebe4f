"""Both families of retry attributes."""

import pytest

from nats_consumer import JetstreamPullConsumer, JetstreamPushConsumer
from nats_consumer.declare.retry import RetryPolicy, retry_policy
from nats_consumer.exceptions import ConfigurationError


def delays(policy: RetryPolicy, attempts: int) -> list[float]:
    return [policy.delay_after(attempt) for attempt in range(1, attempts + 1)]


def test_by_default_a_message_is_tried_four_times() -> None:
    policy = retry_policy(JetstreamPushConsumer)
    assert policy.max_attempts == 4
    assert delays(policy, 3) == [1.0, 2.0, 4.0]


def test_delays_grow_up_to_the_cap() -> None:
    class Capped(JetstreamPushConsumer):
        max_retries = 5
        initial_retry_delay = 0.1
        backoff_factor = 3.0
        max_retry_delay = 0.5

    policy = retry_policy(Capped)
    assert policy.max_attempts == 6
    assert delays(policy, 5) == pytest.approx([0.1, 0.3, 0.5, 0.5, 0.5])


def test_an_attempt_far_beyond_the_last_one_waits_for_the_cap() -> None:
    assert RetryPolicy().delay_after(5000) == 60.0


def test_no_retries_means_one_attempt() -> None:
    class Once(JetstreamPushConsumer):
        max_retries = 0

    assert retry_policy(Once).max_attempts == 1


def test_max_deliver_counts_all_attempts_and_the_last_delay_repeats() -> None:
    class Delivered(JetstreamPullConsumer):
        max_deliver = 3
        backoff_delays = (0.5, 2.0)

    policy = retry_policy(Delivered)
    assert policy.max_attempts == 3
    assert delays(policy, 4) == [0.5, 2.0, 2.0, 2.0]
    assert policy.max_delay == 2.0


def test_backoff_delays_alone_come_with_five_attempts() -> None:
    class Delivered(JetstreamPullConsumer):
        backoff_delays = [1.0]

    assert retry_policy(Delivered).max_attempts == 5


def test_both_families_at_once_are_refused_by_name() -> None:
    class Base(JetstreamPullConsumer):
        max_retries = 3

    class Both(Base):
        max_deliver = 5

    with pytest.raises(ConfigurationError, match=r"max_retries and max_deliver\. Keep one"):
        retry_policy(Both)


def test_ack_wait_belongs_to_either_family() -> None:
    class Waiting(JetstreamPullConsumer):
        max_retries = 2
        ack_wait = 5.0

    assert retry_policy(Waiting).max_attempts == 3


def test_an_attribute_of_the_instance_counts() -> None:
    consumer = JetstreamPullConsumer()
    consumer.max_retries = 7
    assert retry_policy(consumer).max_attempts == 8


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("max_retries", "3"), ("max_retries", -1), ("initial_retry_delay", -1), ("max_deliver", 0)],
)
def test_a_wrong_value_is_refused_by_name(attribute: str, value: object) -> None:
    wrong = type("Wrong", (JetstreamPullConsumer,), {attribute: value})
    with pytest.raises(ConfigurationError, match=attribute):
        retry_policy(wrong)
