"""manage.py nats_dlq: its arguments."""

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from nats_consumer import JetstreamPullConsumer


def consumer_of(stream: str) -> type:
    def handle_message(self: Any, message: Any) -> None: ...

    attributes = {"stream_name": stream, "filter_subject": ">", "handle_message": handle_message}
    return type(stream.title(), (JetstreamPullConsumer,), attributes)


def test_a_project_without_consumers_has_to_name_the_stream() -> None:
    with pytest.raises(CommandError, match="Name the stream: --stream orders"):
        call_command("nats_dlq", "list")


def test_a_number_needs_its_stream_where_there_are_several() -> None:
    consumer_of("orders"), consumer_of("shop")
    with pytest.raises(
        CommandError, match="orders, shop numbers its own dead letters: add --stream"
    ):
        call_command("nats_dlq", "replay", "1")


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ("", "required: VERB"),
        ("revive", "invalid choice: 'revive'"),
        ("show", "required: NUMBER"),
        ("list --older-than=soon", "'soon' is not an age"),
        ("purge --older-than 30", "'30' is not an age: write 90s, 15m"),
        ("list --newer-than 2", "'2' is not an age"),
        ("list --limit 0", "'0' is not a whole number from 1"),
        ("list --limit many", "'many' is not a whole number from 1"),
        ("show 99999999999999999999", "is not a whole number from 1 to 999999999999999999"),
        ("replay --stream orders 0", "'0' is not a whole number from 1"),
    ],
)
def test_a_wrong_argument_is_an_error(arguments: str, rule: str) -> None:
    with pytest.raises(CommandError, match=rule):
        call_command("nats_dlq", *arguments.split())


@pytest.mark.parametrize("arguments", ["list orders.created", "show 1 --stream orders.created"])
def test_a_subject_in_the_place_of_a_stream_is_refused_at_once(arguments: str) -> None:
    with pytest.raises(CommandError, match=r"name of a stream cannot contain dots: 'orders\.cr"):
        call_command("nats_dlq", *arguments.split())


def test_two_different_streams_to_list_are_an_error() -> None:
    with pytest.raises(CommandError, match="Name one stream, not orders and shop"):
        call_command("nats_dlq", "list", "orders", "--stream", "shop")


@pytest.mark.parametrize("stream", [["--stream", "orders"], ["orders"]])
def test_a_server_that_is_not_there_is_named(settings: Settings, stream: list[str]) -> None:
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": "nats://127.0.0.1:1", "connect_timeout": 0.2}
    }
    with pytest.raises(CommandError, match=r"127\.0\.0\.1:1"):
        call_command("nats_dlq", "list", *stream)
