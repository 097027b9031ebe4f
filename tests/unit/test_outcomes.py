"""What a handler can decide."""

from datetime import timedelta

import pytest

from nats_consumer import Ack, DeadLetter, Drop, ErrorAckBehavior, Outcome, Retry


def test_a_retry_without_a_delay_leaves_it_to_the_consumer() -> None:
    assert Retry().after is None


@pytest.mark.parametrize("after", [1.5, timedelta(seconds=1.5)])
def test_a_retry_takes_seconds_or_a_timedelta(after: float | timedelta) -> None:
    assert Retry(after=after).after == 1.5


@pytest.mark.parametrize("after", [-1, timedelta(seconds=-1), float("inf"), float("nan")])
def test_a_retry_comes_after_a_number_of_seconds(after: float | timedelta) -> None:
    with pytest.raises(ValueError, match="a delay is a number of seconds, not below 0"):
        Retry(after=after)


@pytest.mark.parametrize("outcome", [DeadLetter("no such order"), Drop("no such order")])
def test_a_final_outcome_has_a_reason(outcome: Outcome) -> None:
    assert outcome.reason == "no such order"
    assert str(outcome) == "no such order"


def test_outcomes_are_equal_if_they_say_the_same() -> None:
    assert Ack() == Ack()
    assert Retry(after=1) == Retry(after=1.0)
    assert Retry(after=1) != Retry(after=2)
    assert DeadLetter("x") != Drop("x")
    assert {Retry(after=1), Retry(after=1.0), Drop("x"), Drop("x")} == {Retry(after=1), Drop("x")}


def test_the_seeds_error_behaviors_keep_their_values() -> None:
    assert ErrorAckBehavior("Ack") is ErrorAckBehavior.ACK
    assert ErrorAckBehavior("Nak") is ErrorAckBehavior.NAK
    custom = ErrorAckBehavior("ImplementedByHandleError")
    assert custom is ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR
