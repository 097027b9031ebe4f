"""manage.py nats_update_stream and nats_delete_stream."""

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from nats_consumer import operations
from tests.live.support.stage import Stage

pytestmark = pytest.mark.anyio


def manage(command: str, *arguments: str) -> str:
    """Run the command and return its output."""
    output = io.StringIO()
    call_command(command, *arguments, stdout=output, no_color=True)
    return output.getvalue()


def config(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = stage.server.stream(stage.stream)["config"]
    return found


async def test_an_update_changes_what_is_given_and_keeps_the_rest(stage: Stage) -> None:
    await stage.jetstream.update_stream(name=stage.stream, description="kept", max_msgs=9)
    manage("nats_update_stream", stage.stream, "--max-age", "1h", "--duplicate-window", "60")
    assert config(stage)["max_age"] == 3600 * 10**9
    assert config(stage)["duplicate_window"] == 60 * 10**9
    assert (config(stage)["description"], config(stage)["max_msgs"]) == ("kept", 9)
    assert config(stage)["subjects"] == [f"{stage.stream}.>"]


async def test_every_option_changes_its_field(stage: Stage) -> None:
    subjects = [f"{stage.stream}.created", f"{stage.stream}.shipped"]
    options = "--max-msgs 9 --max-bytes 4096 --max-msg-size 100 --discard new --replicas 1"
    options += " --storage file --retention interest"
    manage("nats_update_stream", stage.stream, "--subjects", *subjects, *options.split())
    expected = {
        "subjects": subjects,
        "max_msgs": 9,
        "max_bytes": 4096,
        "max_msg_size": 100,
        "discard": "new",
        "retention": "interest",
        "num_replicas": 1,
        "storage": "file",
    }
    assert {name: config(stage)[name] for name in expected} == expected


async def test_an_update_says_what_changes_and_where(stage: Stage) -> None:
    printed = manage("nats_update_stream", stage.stream, "--max-age", "3600", "--max-msgs", "5")
    assert f"Server: {stage.server.url}" in printed
    assert "max_age: no limit -> 3600 s" in printed
    assert "max_msgs: no limit -> 5" in printed
    assert printed.count("->") == 2


async def test_a_duplicate_window_longer_than_the_age_is_shortened_and_named(stage: Stage) -> None:
    printed = manage("nats_update_stream", stage.stream, "--max-age", "60")
    assert "duplicate_window: 120 s -> 60 s" in printed
    assert config(stage)["duplicate_window"] == 60 * 10**9


async def test_an_update_that_changes_nothing_says_so(stage: Stage) -> None:
    assert "is already up to date" in manage("nats_update_stream", stage.stream, "--max-age", "0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["STREAM"], "Nothing to change"),
        (["STREAM", "--retention", "sometimes"], "--retention"),
        (["STREAM", "--storage", "memory"], "storage"),
        (["STREAM", "--max-age", "a day"], "'a day' is not a duration: write 90s, 15m, 12h, 7d"),
        (["STREAM", "--duplicate-window", "9e9", "--max-age", "1"], "window"),
        (["STREAM_of_nobody", "--max-age", "1"], "'STREAM_of_nobody' does not exist"),
        (["my.orders", "--max-age", "1"], "NAME cannot contain dots: 'my.orders'"),
        (["my orders", "--max-age", "1"], "NAME cannot contain spaces: 'my orders'"),
        (["STREAM", "--discard", "newest"], r"choose from '?old'?, '?new'?\)"),
    ],
)
async def test_what_cannot_be_changed_is_an_error(
    stage: Stage, arguments: list[str], message: str
) -> None:
    arguments = [argument.replace("STREAM", stage.stream) for argument in arguments]
    with pytest.raises(CommandError, match=message.replace("STREAM", stage.stream)):
        manage("nats_update_stream", *arguments)


async def test_delete_tells_what_goes_and_deletes_it(stage: Stage) -> None:
    await stage.publish("one", "two")
    printed = manage("nats_delete_stream", stage.stream, "--force")
    assert f"Server: {stage.server.url}" in printed
    assert "2 messages" in printed
    assert stage.stream not in stage.server.streams()


@pytest.mark.parametrize(("answer", "stays"), [("y", False), ("", True), ("no", True)])
async def test_delete_asks_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, answer: str, stays: bool
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: answer)
    printed = manage("nats_delete_stream", stage.stream)
    assert (stage.stream in stage.server.streams()) is stays
    assert ("Nothing was deleted" in printed) is stays


async def test_delete_counts_one_of_each_in_the_singular(stage: Stage) -> None:
    await stage.publish("one")
    operation = operations.CreateConsumer(stream=stage.stream, durable_name="billing")
    await operation.execute(stage.client)
    printed = manage("nats_delete_stream", stage.stream, "--force")
    assert f"Stream {stage.stream} has 1 message (" in printed
    assert "and 1 consumer." in printed


async def test_delete_without_anybody_to_ask_is_an_error(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(CommandError, match="Add --force"):
        manage("nats_delete_stream", stage.stream)
    assert stage.stream in stage.server.streams()


@pytest.mark.parametrize(
    ("name", "message"),
    [("nobodys", "nothing to delete: stream 'nobodys' does not exist.$"), ("a b", "spaces")],
)
async def test_delete_of_what_does_not_exist_is_an_error(name: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        manage("nats_delete_stream", name, "--force")
