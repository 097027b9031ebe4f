"""The JetStream API's structs on the wire."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from nats.js import api as theirs

from nats_consumer.operations import api


def test_only_what_is_set_goes_over_the_wire() -> None:
    config = api.StreamConfig(name="orders", subjects=["orders.>"])
    assert config.as_dict() == {"name": "orders", "subjects": ["orders.>"]}


def test_seconds_become_nanoseconds() -> None:
    config = api.StreamConfig(
        name="orders",
        max_age=1.5,
        duplicate_window=timedelta(minutes=2),
        subject_delete_marker_ttl=1,
        consumer_limits={"inactive_threshold": 2, "max_ack_pending": 5},
    )
    assert config.as_dict() == {
        "name": "orders",
        "max_age": 1_500_000_000,
        "duplicate_window": 120_000_000_000,
        "subject_delete_marker_ttl": 1_000_000_000,
        "consumer_limits": {"inactive_threshold": 2_000_000_000, "max_ack_pending": 5},
    }


def test_the_configuration_survives_the_way_there_and_back() -> None:
    config = api.StreamConfig(
        name="orders", max_age=1.5, consumer_limits={"inactive_threshold": 2.0}
    )
    assert api.StreamConfig.from_response(config.as_dict()) == config
    assert config.as_dict()["consumer_limits"]["inactive_threshold"] == 2_000_000_000


def test_a_field_of_a_newer_server_is_left_out() -> None:
    assert api.StreamConfig.from_response({"name": "orders", "new": 1}).name == "orders"


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (api.StorageType.FILE, "file"),
        (api.RetentionPolicy.WORK_QUEUE, "workqueue"),
        (api.DiscardPolicy.NEW, "new"),
        (api.DeliverPolicy.LAST_PER_SUBJECT, "last_per_subject"),
    ],
)
def test_an_enum_is_its_text(member: str, text: str) -> None:
    assert member == text


def test_an_enum_and_its_text_are_the_same_on_the_wire() -> None:
    by_enum = api.StreamConfig(name="orders", storage=api.StorageType.FILE)
    assert by_enum.as_dict() == api.StreamConfig(name="orders", storage="file").as_dict()


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="max_mesages"):
        api.StreamConfig(name="orders", max_mesages=1)


def test_a_copy_differs_in_what_is_said() -> None:
    config = api.StreamConfig(name="orders", max_msgs=1)
    assert config.evolve(max_msgs=2).max_msgs == 2
    assert config.max_msgs == 1


def test_the_servers_times_are_read_to_the_microsecond() -> None:
    info = api.StreamInfo.from_response(
        {
            "config": {"name": "orders"},
            "state": {
                "messages": 3,
                "bytes": 99,
                "first_seq": 1,
                "last_seq": 3,
                "consumer_count": 1,
                "first_ts": "2026-01-02T03:04:05Z",
            },
            "created": "2026-01-02T03:04:05.123456789Z",
        }
    )
    assert info.created == datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
    assert info.state.messages == 3


def test_a_consumers_position_is_read() -> None:
    info = api.ConsumerInfo.from_response(
        {
            "name": "durable",
            "stream_name": "orders",
            "config": {"ack_wait": 30_000_000_000, "backoff": [1_000_000_000], "new": 1},
            "delivered": {
                "consumer_seq": 5,
                "stream_seq": 4,
                "last_active": "2026-01-02T03:04:05Z",
            },
            "ack_floor": {"consumer_seq": 3, "stream_seq": 2},
            "num_ack_pending": 1,
            "num_redelivered": 1,
            "num_waiting": 0,
            "num_pending": 7,
        }
    )
    assert (info.delivered.consumer_seq, info.delivered.stream_seq) == (5, 4)
    assert info.delivered.last_active == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert info.num_pending == 7
    assert (info.config.ack_wait, info.config.backoff) == (30.0, [1.0])


def test_a_struct_inside_another_may_be_given_as_a_dict_of_its_fields() -> None:
    by_dict = api.StreamConfig(name="copy", mirror={"name": "orders", "opt_start_seq": 5})
    assert by_dict == api.StreamConfig(
        name="copy", mirror=api.StreamSource(name="orders", opt_start_seq=5)
    )
    assert by_dict.as_dict()["mirror"] == {"name": "orders", "opt_start_seq": 5}


MIDNIGHT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "moment", [MIDNIGHT, MIDNIGHT.replace(tzinfo=None), "2026-01-02T00:00:00Z"]
)
def test_a_moment_without_a_time_zone_is_utc(moment: datetime | str) -> None:
    config = api.ConsumerConfig(opt_start_time=moment)
    assert config.as_dict()["opt_start_time"] == "2026-01-02T00:00:00Z"


def test_a_stored_messages_headers_and_data_are_decoded() -> None:
    block = b"NATS/1.0\r\nTrace: one\r\nTrace: two\r\nEmpty:\r\n\r\n"
    message = api.RawStreamMsg.from_response(
        {
            "subject": "orders.created",
            "seq": 3,
            "data": base64.b64encode(b"{}").decode(),
            "hdrs": base64.b64encode(block).decode(),
            "time": "2026-01-02T03:04:05.123456789Z",
        }
    )
    assert (message.seq, message.sequence, message.data) == (3, 3, b"{}")
    assert message.headers == message.header == {"Trace": "one", "Empty": ""}


def test_a_struct_of_nats_pys_is_taken_for_ours() -> None:
    source = theirs.StreamSource(name="orders", filter_subject="orders.>")
    config = api.StreamConfig(name="copy", sources=[source], placement=theirs.Placement("eu"))
    assert config.as_dict() == {
        "name": "copy",
        "sources": [{"name": "orders", "filter_subject": "orders.>"}],
        "placement": {"cluster": "eu"},
    }
    limits = theirs.StreamConsumerLimits(inactive_threshold=2)
    given = api.StreamConfig.coerce(theirs.StreamConfig(name="orders", max_age=1.5))
    assert given.evolve(consumer_limits=limits).as_dict()["max_age"] == 1_500_000_000


def test_what_is_no_struct_is_refused() -> None:
    with pytest.raises(TypeError, match="neither a Placement nor a dict"):
        api.StreamConfig(name="orders", placement="eu")  # type: ignore[arg-type]
