"""Settings of any shape: each is taken, or refused with a ConfigurationError."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from nats_consumer import JetstreamPullConsumer, _native
from nats_consumer import settings as ours
from nats_consumer.connect.args import connect_options
from nats_consumer.connect.options import ConnectOptions
from nats_consumer.connect.resolve import display_servers, resolve
from nats_consumer.consumer import ErrorAckBehavior
from nats_consumer.declare.options import ConsumerOptions, consumer_options
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.names import check_name, covers, overlap, subject_problem
from nats_consumer.settings import KEYS

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=5,
)
URLS = st.from_regex(
    r"((nats|tls|ws|)://)?([a-z]:?[a-z]?@)?[a-z.\[\]:]{0,6}(:[0-9]{1,6})?", fullmatch=True
)
CONNECT_ARGS = st.fixed_dictionaries(
    {},
    optional={
        "servers": URLS | st.lists(URLS, max_size=3) | VALUES,
        "name": VALUES,
        "user": VALUES,
        "password": VALUES,
        "token": VALUES,
        "user_credentials": VALUES,
        "nkeys_seed": VALUES,
        "nkeys_seed_str": st.text(max_size=4).map("SU".__add__) | VALUES,
        "tls": VALUES,
        "tls_ca": VALUES,
        "inbox_prefix": VALUES,
        "allow_reconnect": VALUES,
        "max_reconnect_attempts": VALUES,
        "reconnect_time_wait": VALUES,
        "connect_timeout": VALUES,
        "ping_interval": VALUES,
        "no_echo": VALUES,
        "verbose": VALUES,
    },
)


@given(CONNECT_ARGS | st.dictionaries(SCALARS, VALUES, max_size=3) | VALUES)
def test_connect_args_become_options_that_the_engine_takes_or_are_refused(arguments: Any) -> None:
    with override_settings(NATS_CONSUMER={"connect_args": arguments}):
        try:
            options = connect_options()
        except ConfigurationError:
            return
        assert isinstance(options, ConnectOptions)
        assert "://" in display_servers("nats://127.0.0.1:1")
    _native.Publisher(options)  # it connects on first use


READERS: list[Callable[[], object]] = [
    lambda: ours.check_keys(()),
    ours.connect_args,
    ours.connections,
    lambda: ours.connect_args("analytics"),
    ours.default_durable_name,
    ours.manage_durables,
    ours.event_loop_policy,
    ours.max_threads,
    ours.shutdown_timeout,
    ours.http,
    ours.embedded_store,
    ours.inbox_retention,
]


@given(st.dictionaries(st.sampled_from(KEYS) | SCALARS, VALUES, max_size=5) | VALUES)
def test_the_setting_is_read_or_refused(value: Any) -> None:
    with override_settings(NATS_CONSUMER=value):
        for read in READERS:
            with suppress(ConfigurationError):
                read()


ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "connection": VALUES,
        "stream_name": VALUES,
        "durable_name": VALUES,
        "subjects": VALUES | st.lists(st.text("a.*> ", max_size=6), max_size=3),
        "filter_subject": VALUES | st.text("a.*> ", max_size=6),
        "filter_subjects": VALUES | st.lists(st.text("a.*> ", max_size=6), max_size=3),
        "concurrency": VALUES,
        "batch_size": VALUES,
        "fetch_timeout": VALUES,
        "ack_wait": VALUES,
        "max_ack_pending": VALUES,
        "deliver_policy": VALUES | st.sampled_from(["by_start_sequence", "by_start_time", "new"]),
        "start_sequence": VALUES,
        "start_time": VALUES | st.datetimes(),
        "max_retries": VALUES,
        "initial_retry_delay": VALUES,
        "max_retry_delay": VALUES,
        "backoff_factor": VALUES,
        "max_deliver": VALUES,
        "backoff_delays": VALUES | st.lists(SCALARS, max_size=3),
        "handle_error_ack_behavior": VALUES | st.sampled_from(ErrorAckBehavior),
        "handler_timeout": VALUES,
        "ordered": VALUES,
        "idempotent": VALUES,
        "ephemeral": VALUES,
        "handle_message": VALUES,
    },
)


@given(ATTRIBUTES)
def test_a_consumers_attributes_become_options_or_are_refused(attributes: dict[str, Any]) -> None:
    async def handle_message(self: Any, message: Any) -> None: ...

    whole = {"filter_subject": "orders.*", "handle_message": handle_message, **attributes}
    consumer: Any = type("Pulling", (JetstreamPullConsumer,), {**whole, "stream_name": None})
    consumer.stream_name = attributes.get("stream_name", "orders")
    try:
        options = consumer_options(consumer)
    except ConfigurationError:
        return
    assert isinstance(options, ConsumerOptions)
    assert options.max_attempts >= 1
    assert options.ack_wait >= 0.1


@pytest.mark.parametrize("attribute", ["subjects", "filter_subjects", "backoff_delays"])
def test_a_number_where_a_list_belongs_is_refused(attribute: str) -> None:
    attributes = {"stream_name": "orders", "subjects": ["a"], "handle_message": print, attribute: 5}
    consumer: Any = type("Pulling", (JetstreamPullConsumer,), attributes)
    with pytest.raises(ConfigurationError, match=f"{attribute} must be a list of .*, not 5"):
        consumer_options(consumer)


SUBJECTS = st.text("ab.*> \n\0\u00e4", max_size=9) | st.text(max_size=9)


@given(SUBJECTS)
def test_a_filter_is_refused_as_the_engine_refuses_it(subject: str) -> None:
    try:
        _native.Router([subject])
    except ValueError:
        assert subject_problem(subject)
    else:
        assert subject_problem(subject) is None


def test_a_filter_longer_than_a_line_of_the_protocol_is_refused_as_well() -> None:
    assert subject_problem("a" * 4096) is None
    problem = subject_problem("\u00e4" * 2049)
    assert problem is not None
    assert len(problem) < 200


PATTERNS = st.from_regex(r"([ab*](\.[ab*]){0,3}(\.>)?)|>", fullmatch=True)
LITERALS = st.from_regex(r"[ab](\.[ab]){0,4}", fullmatch=True)


@given(PATTERNS, PATTERNS, LITERALS)
def test_patterns_cover_and_overlap_as_the_engine_matches(one: str, other: str, name: str) -> None:
    matches = [_native.Router([pattern]).find(name) is not None for pattern in (one, other)]
    if all(matches):
        assert overlap(one, other)
        assert overlap(other, one)
    if covers(one, other) and matches[1]:
        assert matches[0]
    assert covers(one, name) == matches[0]


@given(SUBJECTS)
def test_a_name_is_one_token_of_a_subject_or_refused(name: str) -> None:
    try:
        check_name(name, "durable_name")
    except ValueError:
        return
    assert subject_problem(f"$JS.API.CONSUMER.INFO.orders.{name}") is None
    assert "." not in name


@pytest.mark.parametrize("name", ["a\0b", "a\x1bb", "a\x7f", "a\x85"])
def test_a_name_with_a_control_character_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"control characters|spaces"):
        check_name(name, "durable_name")


@given(st.text(max_size=12))
def test_a_file_that_holds_no_seed_is_refused_without_a_word_of_it(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = Path(tmp_path_factory.getbasetemp()) / "seed"
    file.write_text(f"hunter2{text}")
    with pytest.raises(ConfigurationError) as caught:
        resolve(connect_options({"nkeys_seed": str(file)}))
    assert "hunter2" not in str(caught.value)
