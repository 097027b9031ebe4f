"""Outcomes of a handler."""

from datetime import timedelta
from typing import Any

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


@pytest.mark.parametrize("after", ["5", object])
def test_a_retry_after_what_is_no_number_says_what_a_delay_is(after: Any) -> None:
    with pytest.raises(TypeError, match=r"^Retry\(after=.*: a delay is a number of seconds, or a"):
        Retry(after=after)


@pytest.mark.parametrize("outcome", [DeadLetter, Drop])
def test_a_final_outcome_raised_as_a_class_says_that_it_needs_a_reason(
    outcome: type[Outcome],
) -> None:
    name = outcome.__name__
    with pytest.raises(TypeError, match=rf"^{name} needs a reason: {name}\('why'\)\.$"):
        raise outcome


def test_a_reason_that_is_no_text_is_named() -> None:
    reason: Any = KeyError("number")
    with pytest.raises(TypeError, match=r"needs a reason that is text, not KeyError\('number'\)"):
        raise Drop(reason)


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
