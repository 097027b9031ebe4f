"""The rules for names."""

import pytest

from nats_consumer.names import (
    check_name,
    check_stream_name,
    covers,
    is_wildcard,
    overlap,
    subject_problem,
)


@pytest.mark.parametrize("name", ["orders", "orders-v2", "my_orders", "ORDERS"])
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert check_name(name, "stream_name") == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("my orders", "cannot contain spaces"),
        ("my\torders", "cannot contain spaces"),
        ("orders.eu", "cannot contain dots"),
        ("orders*", r"cannot contain '\*'"),
        ("orders/eu", "cannot contain slashes"),
        ("", "is empty"),
        (7, "must be a string"),
    ],
)
def test_a_bad_name_is_refused_with_the_reason(name: object, reason: str) -> None:
    with pytest.raises(ValueError, match=f"stream_name of X {reason}"):
        check_name(name, "stream_name of X")


def test_a_stream_whose_marks_no_server_would_take_is_refused() -> None:
    assert check_stream_name("x" * 249, "stream_name")
    with pytest.raises(ValueError, match="stream_name is longer than 249 bytes"):
        check_stream_name("\u00fc" * 125, "stream_name")


@pytest.mark.parametrize(
    ("subject", "answer"),
    [
        ("orders.*", True),
        (">", True),
        ("*.error", True),
        ("orders.created", False),
        ("orders.cre*", False),
        ("orders>", False),
    ],
)
def test_a_wildcard_is_a_whole_token(subject: str, answer: bool) -> None:
    assert is_wildcard(subject) is answer


@pytest.mark.parametrize(
    ("pattern", "subject", "answer"),
    [
        ("orders.created", "orders.created", True),
        ("orders.created", "orders.updated", False),
        ("orders.*", "orders.updated", True),
        ("orders.*", "orders", False),
        ("orders.*", "orders.eu.updated", False),
        ("orders.*", "orders.>", False),
        ("orders.>", "orders.eu.*", True),
        ("orders.>", "orders", False),
        (">", "orders.>", True),
        ("*.created", "orders.*", False),
        ("*.*", "orders.*", True),
    ],
)
def test_a_pattern_covers_what_it_always_matches(pattern: str, subject: str, answer: bool) -> None:
    assert covers(pattern, subject) is answer


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("orders.created", "orders.created", True),
        ("orders.created", "orders.updated", False),
        ("orders.*", "orders.created", True),
        ("orders.*", "*.created", True),
        ("orders.*", "*.created.v2", False),
        ("orders.>", "*.created", True),
        ("orders.>", "orders", False),
        ("orders.>", "users.>", False),
        (">", "orders", True),
        ("*.created.>", "orders.*.v2", True),
        ("*.created", "*.updated", False),
    ],
)
def test_two_patterns_overlap_where_a_message_can_match_both(
    one: str, other: str, answer: bool
) -> None:
    assert overlap(one, other) is answer
    assert overlap(other, one) is answer


@pytest.mark.parametrize("subject", ["orders..x", "bad subject", "orders.>.x", "", ".orders", 5])
def test_a_subject_that_nats_would_refuse_has_a_problem(subject: object) -> None:
    problem = subject_problem(subject)
    assert problem is not None
    assert repr(subject) in problem


@pytest.mark.parametrize("subject", ["orders.*", ">", "orders.*.failed", "*.orders.>", "a.créé"])
def test_a_subject_that_nats_takes_has_none(subject: str) -> None:
    assert subject_problem(subject) is None
