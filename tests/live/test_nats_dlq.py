"""manage.py nats_dlq: dead letters are listed, shown, replayed and purged."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from nats_consumer import DeadLetter
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

GiveUp = Callable[..., Awaitable[type]]


def dlq(*arguments: str) -> str:
    """Run the command and return its output."""
    output = io.StringIO()
    call_command("nats_dlq", *arguments, stdout=output, stderr=output)
    return output.getvalue()


def kept(stage: Stage) -> int:
    """How many dead letters the stream has."""
    return int(stage.server.stream(f"{stage.stream}-dlq")["state"]["messages"])


@pytest.fixture
def give_up(stage: Stage) -> GiveUp:
    """`await give_up("one", "two", reason="no such customer")` makes dead letters of messages."""

    async def give_up(
        *payloads: bytes | str, reason: str = "given up", name: str = "Orders"
    ) -> type:
        async def handle_message(self: Any, message: Any) -> None:
            raise DeadLetter(reason)

        consumer = type(name, (stage.Pull,), {"handle_message": handle_message})
        await stage.publish(*payloads)
        async with running(consumer):
            await stage.everything_is_settled(consumer)
        return consumer

    return give_up


async def test_list_has_a_line_for_each_and_names_the_server(stage: Stage, give_up: GiveUp) -> None:
    await give_up("one", "two")
    printed = dlq("list", "--stream", stage.stream)
    assert f"Server: {stage.server.url}" in printed
    assert f"{stage.stream}: 2 dead letters" in printed
    (first, second) = [line.split() for line in printed.splitlines() if "given up" in line]
    assert (first[0], second[0]) == ("1", "2")
    assert first[3:] == ["Orders", f"{stage.stream}.created", "given", "up"]


async def test_list_takes_the_stream_without_the_option_as_well(
    stage: Stage, give_up: GiveUp
) -> None:
    await give_up("one")
    assert dlq("list", stage.stream) == dlq("list", "--stream", stage.stream)
    assert f"{stage.stream}: 1 dead letter" in dlq("list", stage.stream)


async def test_list_says_when_there_are_more(stage: Stage, give_up: GiveUp) -> None:
    await give_up("one", "two", "three")
    printed = dlq("list", "--stream", stage.stream, "--limit", "2")
    assert printed.count("given up") == 2
    assert "... and more" in printed


async def test_without_a_stream_it_looks_at_those_of_the_projects_consumers(
    stage: Stage, give_up: GiveUp
) -> None:
    await give_up("one")  # Orders is a consumer of this process
    assert f"{stage.stream}: 1 dead letter" in dlq("list")


async def test_list_of_the_stream_that_keeps_them_names_the_one_they_come_from(
    stage: Stage, give_up: GiveUp
) -> None:
    await give_up("one")
    printed = dlq("list", f"{stage.stream}-dlq")
    assert f"{stage.stream}-dlq: 0 dead letters" in printed
    assert f"To list the dead letters of {stage.stream}, use --stream {stage.stream}." in printed


@pytest.mark.parametrize("options", [[], ["--yes"], ["--dry-run"]])
async def test_purge_that_selects_nothing_says_so(stage: Stage, options: list[str]) -> None:
    printed = dlq("purge", "--all", "--stream", stage.stream, *options)
    assert "Nothing to delete: no dead letter is selected." in printed


@pytest.mark.parametrize("verb", ["replay", "purge"])
async def test_numbers_beside_all_are_refused(stage: Stage, give_up: GiveUp, verb: str) -> None:
    await give_up("one", "two")
    with pytest.raises(CommandError, match="either numbers, or a selection or --all"):
        dlq(verb, "1", "--all", "--stream", stage.stream)
    assert kept(stage) == 2


async def test_list_of_a_stream_without_any(stage: Stage) -> None:
    assert f"{stage.stream}: 0 dead letters" in dlq("list", "--stream", stage.stream)


async def test_an_unknown_stream_is_an_error() -> None:
    with pytest.raises(CommandError, match="The stream `oders` does not exist"):
        dlq("list", "--stream", "oders")


async def test_show_tells_everything(stage: Stage, give_up: GiveUp) -> None:
    await stage.jetstream.publish(
        f"{stage.stream}.shipped", b'{"id": 1}', headers={"Trace": "abc", "Nats-Msg-Id": "order-1"}
    )
    await give_up(reason="no such customer")
    printed = dlq("show", "1", "--stream", stage.stream)
    for expected in (
        f"{stage.stream}.shipped",
        f"1 of stream {stage.stream}",
        "consumer:   Orders",
        "reason:     no such customer",
        "  Trace: abc",
        "  Nats-Msg-Id: order-1",
        '{"id": 1}',
    ):
        assert expected in printed


async def test_show_of_bytes_that_are_no_text(stage: Stage, give_up: GiveUp) -> None:
    await give_up(b"\x00\xff")
    assert r"b'\x00\xff'" in dlq("show", "1", "--stream", stage.stream)


async def test_a_number_that_is_not_there_is_an_error(stage: Stage) -> None:
    with pytest.raises(CommandError, match="no dead letter 7"):
        dlq("show", "7", "--stream", stage.stream)


async def test_replay_brings_the_message_back_as_it_was(stage: Stage, give_up: GiveUp) -> None:
    subject, headers = f"{stage.stream}.shipped.abroad", {"Trace": "abc", "Nats-Msg-Id": "order-1"}
    await stage.jetstream.publish(subject, b"\x00\xff{", headers=headers)
    await give_up()
    printed = dlq("replay", "1", "--stream", stage.stream)
    assert f"is now message 2 of {stage.stream}" in printed
    assert "new Nats-Msg-Id" in printed
    assert kept(stage) == 0

    seen: list[tuple[str, bytes, dict[str, str]]] = []

    class Orders(stage.Pull):
        async def handle_message(self, message: Any) -> None:
            seen.append((message.subject, message.data, message.headers))

    async with running(Orders):
        await becomes_true(lambda: seen)
    ((subject_again, data, headers_again),) = seen
    assert (subject_again, data) == (subject, b"\x00\xff{")
    assert headers_again["Trace"] == "abc"
    assert headers_again["Dlq-Original-Msg-Id"] == "order-1"
    assert headers_again["Nats-Msg-Id"].startswith(f"replay.{stage.stream}-dlq.1.")


async def test_a_selection_replays_only_what_fits(stage: Stage, give_up: GiveUp) -> None:
    await give_up("one", reason="no such customer")
    await give_up(reason="too late", name="Mails")  # the same message, of another consumer
    printed = dlq("replay", "--stream", stage.stream, "--consumer", "Mails", "--reason", "late")
    assert "Replayed: 1 dead letter." in printed
    left = dlq("list", "--stream", stage.stream)
    assert "no such customer" in left
    assert "too late" not in left


async def test_a_dry_run_does_nothing(stage: Stage, give_up: GiveUp) -> None:
    await give_up("one", "two")
    replayed = dlq("replay", "--stream", stage.stream, "--all", "--dry-run")
    purged = dlq("purge", "--stream", stage.stream, "--all", "--yes", "--dry-run")
    assert replayed.count("would replay") == 2
    assert purged.count("would delete") == 2
    assert kept(stage) == 2
    assert stage.server.stream(stage.stream)["state"]["messages"] == 2


async def test_replaying_ends_though_the_messages_fail_again(stage: Stage, give_up: GiveUp) -> None:
    failing = await give_up("one", "two")
    async with running(failing):
        assert "Replayed: 2 dead letters." in dlq("replay", "--stream", stage.stream, "--all")
        await becomes_true(lambda: kept(stage) == 2)


async def test_what_cannot_be_replayed_is_named_and_stays(stage: Stage, give_up: GiveUp) -> None:
    await give_up("one", "two")
    await stage.jetstream.update_stream(name=stage.stream, max_msgs=2, discard="new")
    with pytest.raises(CommandError, match="Not replayed: 2 dead letters"):
        dlq("replay", "--stream", stage.stream, "--all")
    assert kept(stage) == 2


async def test_purge_needs_a_yes(stage: Stage, give_up: GiveUp) -> None:
    await give_up("one", "two")
    with pytest.raises(CommandError, match=r"Nothing was deleted.*2 dead letters.*--yes"):
        dlq("purge", "--stream", stage.stream, "--all")
    assert kept(stage) == 2
    assert "Deleted: 2 dead letters." in dlq("purge", "--stream", stage.stream, "--all", "--yes")
    assert kept(stage) == 0


async def test_purge_by_age_leaves_the_younger_ones(stage: Stage, give_up: GiveUp) -> None:
    await give_up("one", "two")
    choice = ("purge", "--stream", stage.stream, "--yes")
    assert "Nothing to delete: no dead letter is selected." in dlq(*choice, "--older-than", "1h")
    assert "Deleted: 2 dead letters." in dlq(*choice, "--newer-than", "1h")


async def test_purge_of_one(stage: Stage, give_up: GiveUp) -> None:
    await give_up("one", "two")
    dlq("purge", "1", "--stream", stage.stream, "--yes")
    assert kept(stage) == 1


@pytest.mark.parametrize("verb", ["replay", "purge"])
async def test_a_choice_has_to_be_made(stage: Stage, verb: str) -> None:
    with pytest.raises(CommandError, match="Say which dead letters"):
        dlq(verb, "--stream", stage.stream)


async def test_a_consumer_that_does_not_exist_is_pointed_out(stage: Stage, give_up: GiveUp) -> None:
    consumer = await give_up("one", name="Orders")
    consumer.durable_name = "Orders"
    selected = ("list", stage.stream, "--consumer")
    printed = await asyncio.to_thread(dlq, *selected, "Order")
    assert "There is no consumer 'Order'. Did you mean 'Orders'?" in printed
    assert "Treating it as a durable name." in printed
    assert "no consumer" not in await asyncio.to_thread(dlq, *selected, "Orders")


async def test_the_durable_of_a_consumer_is_known(stage: Stage) -> None:
    def handle_message(self: Any, message: Any) -> None: ...

    attributes = {"durable_name": "billing", "handle_message": handle_message}
    consumer = type("Charges", (stage.Pull,), attributes)
    async with running(consumer):
        printed = await asyncio.to_thread(dlq, "list", "--consumer", "billing")
    assert "no consumer" not in printed


async def test_options_of_django_may_stand_behind_the_verb(stage: Stage, give_up: GiveUp) -> None:
    await give_up("one")
    options = ("--no-color", "--traceback", "-v", "2", "--settings", "tests.project.settings")
    assert "1 dead letter" in await asyncio.to_thread(dlq, "list", stage.stream, *options)


async def test_a_payload_does_not_steer_the_terminal(stage: Stage, give_up: GiveUp) -> None:
    await give_up(b"\x1b]0;owned\x07\x1b[2Jnothing here", reason="\x1b[8m")
    printed = dlq("show", "1", "--stream", stage.stream) + dlq("list", stage.stream)
    assert "\x1b" not in printed
    assert r"\x1b[2Jnothing here" in printed


async def test_the_newest_are_listed_first_if_wanted(stage: Stage, give_up: GiveUp) -> None:
    await give_up(*(str(number) for number in range(70)))  # more than is asked for at once
    lines = dlq("list", stage.stream, "--newest", "--limit", "3").splitlines()
    assert [line.split()[0] for line in lines if "given up" in line] == ["70", "69", "68"]
    assert len([line for line in dlq("list", stage.stream).splitlines() if "given" in line]) == 70


@pytest.mark.parametrize("listing", [["show", "1"], ["list"]])
async def test_an_ascii_terminal_shows_numbers_of_characters(
    stage: Stage, give_up: GiveUp, listing: list[str]
) -> None:
    await give_up("größe €", reason="größe")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    call_command("nats_dlq", *listing, "--stream", stage.stream, stdout=terminal)
    terminal.seek(0)
    assert r"gr\xf6\xdfe" in terminal.read()


async def test_a_replay_is_counted(stage: Stage, give_up: GiveUp) -> None:
    consumer = await give_up("one")
    for _ in range(2):
        async with running(consumer):
            await asyncio.to_thread(dlq, "replay", "--all", "--stream", stage.stream)
            await stage.everything_is_settled(consumer)
            await becomes_true(lambda: kept(stage) == 1)
    assert "  Dlq-Replays: 2" in dlq("show", "3", "--stream", stage.stream)
