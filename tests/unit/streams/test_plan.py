"""Changes of a stream: which lose messages, and which cannot be made."""

from typing import Any

import pytest

from nats_consumer import operations
from nats_consumer.streams.plan import Change, Mark, mark_of, stream_changes

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("before", "after", "mark"),
    [
        ({"max_age": 0}, {"max_age": SECOND}, Mark.LOSE),
        ({"max_age": SECOND}, {"max_age": 2 * SECOND}, Mark.CHANGE),
        ({"max_age": SECOND}, {"max_age": 0}, Mark.CHANGE),
        ({"max_msgs": -1}, {"max_msgs": 10}, Mark.LOSE),
        ({"max_bytes": 10}, {"max_bytes": 9}, Mark.LOSE),
        ({"max_msgs_per_subject": 1}, {"max_msgs_per_subject": 2}, Mark.CHANGE),
        ({"subjects": ["a", "b"]}, {"subjects": ["a"]}, Mark.LOSE),
        ({"subjects": ["a.b"]}, {"subjects": ["a.*"]}, Mark.CHANGE),
        ({"retention": "limits"}, {"retention": "interest"}, Mark.LOSE),
        ({"retention": "limits"}, {"retention": "workqueue"}, Mark.STUCK),
        ({"retention": "workqueue"}, {"retention": "limits"}, Mark.STUCK),
        ({"storage": "file"}, {"storage": "memory"}, Mark.STUCK),
        ({"deny_delete": True}, {"deny_delete": False}, Mark.STUCK),
        ({"deny_delete": False}, {"deny_delete": True}, Mark.CHANGE),
        ({"allow_msg_ttl": True}, {"allow_msg_ttl": False}, Mark.STUCK),
        ({}, {"mirror": {"name": "other"}}, Mark.STUCK),
        ({"num_replicas": 3}, {"num_replicas": 1}, Mark.CHANGE),
        ({"max_msgs": -1}, {"max_msgs": 0}, Mark.KEEP),
    ],
)
def test_a_change_is_marked_by_what_it_does_to_messages(
    before: dict[str, Any], after: dict[str, Any], mark: Mark
) -> None:
    assert mark_of(list(stream_changes(before, after))) == mark


def test_a_change_says_from_what_to_what() -> None:
    before = {"max_age": 0, "subjects": ["orders.created"]}
    after = {"max_age": 90 * SECOND, "subjects": ["orders.>"]}
    assert list(stream_changes(before, after)) == [
        Change(field="subjects", before="orders.created", after="orders.>"),
        Change(field="max_age", before="no limit", after="90 s", mark=Mark.LOSE),
    ]


def test_operations_tell_how_they_leave_a_stream() -> None:
    present = {"name": "orders", "max_msgs": 5, "description": "kept"}
    fields: dict[str, Any] = {"name": "orders", "max_msgs": 9}
    created = {"name": "orders", "max_msgs": 9}
    changed = {**present, "max_msgs": 9}
    for operation, without, with_one in (
        (operations.CreateStream(**fields), created, present),
        (operations.UpdateStream(**fields), None, changed),
        (operations.CreateOrUpdateStream(**fields), created, changed),
        (operations.DeleteStream("orders"), None, None),
    ):
        assert operation.stream_name == "orders"
        assert (operation.after(None), operation.after(present)) == (without, with_one)


def test_an_operation_of_ones_own_does_not_tell() -> None:
    class Own(operations.StreamOperation):
        pass

    assert Own().stream_name is None
    with pytest.raises(NotImplementedError):
        Own().after(None)
