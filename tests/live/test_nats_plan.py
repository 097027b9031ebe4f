"""manage.py nats_plan and nats_apply: what differs on the server is shown, and made as declared."""

import asyncio
import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from nats_consumer import JetstreamPullConsumer, Message, operations
from nats_consumer.api import StreamConfig
from nats_consumer.declare import registry
from tests.live.support.stage import Stage, running

pytestmark = pytest.mark.anyio

Operations = list[operations.StreamOperation]


@pytest.fixture(autouse=True)
def project(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project without the stage's own classes, which have no handler."""
    monkeypatch.setattr(registry, "_declared", {})


async def manage(command: str, *arguments: str) -> str:
    """Run the command beside this event loop; a CommandError has its output, too."""
    output = io.StringIO()
    try:
        await asyncio.to_thread(call_command, command, *arguments, stdout=output, no_color=True)
    except CommandError as error:
        raise CommandError(output.getvalue() + str(error)) from error
    return output.getvalue()


async def marks(*names: str) -> dict[str, str]:
    """The mark of each object that is not as declared."""
    printed = json.loads(await manage("nats_plan", "--json", *names))
    [plan] = printed["plans"]
    return {each["name"]: each["mark"] for each in plan["objects"] if each["mark"] != "="}


def declare(
    stage: Stage, *of_setup: operations.StreamOperation, called: str = "Billing", **attributes: Any
) -> type[Any]:
    """A consumer class of the stage's stream, with this setup()."""

    async def handle_message(self: Any, message: Message) -> None: ...

    def setup(self: Any) -> Operations:
        return list(of_setup)

    body = {
        "stream_name": stage.stream,
        "filter_subject": f"{stage.stream}.>",
        "handle_message": handle_message,
        "setup": setup,
        **attributes,
    }
    return type(called, (JetstreamPullConsumer,), body)


def stream_of(stage: Stage, **fields: Any) -> operations.StreamOperation:
    given = {"name": stage.stream, "subjects": [f"{stage.stream}.>"], **fields}
    return operations.CreateOrUpdateStream(**given)


async def test_what_is_missing_is_planned_created_and_then_nothing_is_left(
    stage: Stage, fresh: Callable[[str], str]
) -> None:
    name = fresh("mails")
    created = operations.CreateStream(name=name, subjects=[f"{name}.>"], max_age=60)
    reader = operations.CreateConsumer(stream=name, durable_name="archive")
    declare(stage, stream_of(stage), created, reader)
    durable = f"{stage.stream}/Billing"
    assert await marks() == {name: "+", f"{name}/archive": "+", durable: "+"}
    with pytest.raises(CommandError, match="not as declared"):
        await manage("nats_plan", "--check")
    assert name not in stage.server.streams()
    printed = await manage("nats_apply", "--yes")
    assert f"The stream {name} is created." in printed
    assert f"The durable {durable} is created." in printed
    assert await marks() == {}
    assert "Nothing to do: 4 streams and durables" in await manage("nats_plan", "--check")
    assert stage.server.stream(name)["config"]["max_age"] == 60 * 10**9


async def test_a_plan_names_what_create_stream_does_not_change(
    stage: Stage, fresh: Callable[[str], str]
) -> None:
    name = fresh("mails")
    await operations.CreateStream(name=name, subjects=[f"{name}.sent"]).execute(stage.client)
    subjects = [f"{name}.sent", f"{name}.lost"]
    created = operations.CreateStream(name=name, subjects=subjects, max_age=60)
    declare(stage, stream_of(stage), created)
    await manage("nats_apply", "--yes")
    assert stage.server.stream(name)["config"]["subjects"] == [f"{name}.sent"]
    printed = await manage("nats_plan", "--check")
    assert f"= stream {name}\n" in printed
    assert f"{name}.lost is not added to its subjects, max_age stays no limit, not 60 s" in printed
    assert "use CreateOrUpdateStream or UpdateStream" in printed
    assert "as declared" not in printed


async def test_a_plan_names_the_subjects_that_a_second_create_stream_does_not_add(
    stage: Stage, fresh: Callable[[str], str]
) -> None:
    name = fresh("mails")
    declare(
        stage,
        operations.CreateStream(name=name, subjects=[f"{name}.sent"]),
        operations.CreateStream(name=name, subjects=[f"{name}.lost"]),
    )
    printed = await manage("nats_plan")
    assert f"+ stream {name}\n" in printed
    assert f"{name}.lost is not added to its subjects" in printed


async def test_what_create_stream_asks_for_and_the_stream_has_is_not_named(
    stage: Stage, fresh: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    wide, updated = fresh("wide"), fresh("updated")
    for name, subject in ((wide, f"{wide}.>"), (updated, f"{updated}.sent")):
        await operations.CreateStream(name=name, subjects=[subject]).execute(stage.client)
    narrow = operations.CreateStream(name=wide, subjects=[f"{wide}.sent"])
    both = [f"{updated}.sent", f"{updated}.lost"]
    declare(
        stage,
        narrow,
        operations.CreateStream(name=updated, subjects=both, max_age=60),
        operations.UpdateStream(name=updated, subjects=both, max_age=30),
    )
    assert "CreateStream" not in await manage("nats_plan")
    await narrow.execute(stage.client)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


async def test_a_plan_names_what_create_consumer_does_not_change(stage: Stage) -> None:
    name = stage.stream
    await operations.CreateConsumer(stream=name, durable_name="archive").execute(stage.client)
    declare(stage, operations.CreateConsumer(stream=name, durable_name="archive", ack_wait=77.0))
    printed = await manage("nats_plan")
    assert f"= durable {name}/archive\n" in printed
    assert "CreateConsumer does not change an existing durable: ack_wait stays" in printed


async def test_the_durable_that_is_applied_is_the_one_that_the_worker_wants(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    billing = declare(stage, ack_wait=45.0)
    await manage("nats_apply", "--yes")
    config = stage.consumer(billing)["config"]
    caplog.set_level(logging.INFO, "nats_consumer")
    async with running(billing):
        assert stage.consumer(billing)["config"] == config
    assert [line for line in caplog.messages if "was updated" in line or "created" in line] == []


@pytest.mark.parametrize(
    ("changed", "field", "mark"),
    [
        ({"ack_wait": 45.0}, "ack_wait: 30s -> 45s", "~"),
        ({"max_ack_pending": 7}, "max_ack_pending: 20000 -> 7", "~"),
        ({"filter_subject": "STREAM.paid"}, '-> "STREAM.paid" (!)', "!"),
    ],
)
async def test_a_changed_declaration_is_shown_with_its_mark(
    stage: Stage, changed: dict[str, Any], field: str, mark: str
) -> None:
    declare(stage)
    await manage("nats_apply", "--yes")
    registry._declared.clear()
    text = {key: str(value).replace("STREAM", stage.stream) for key, value in changed.items()}
    declare(stage, **(text if "filter_subject" in changed else changed))
    assert field.replace("STREAM", stage.stream) in await manage("nats_plan")
    assert await marks() == {f"{stage.stream}/Billing": mark}


@pytest.mark.parametrize(
    ("by_hand", "reason"),
    [
        ({"ack_policy": "none"}, "has the ack policy `none`"),
        ({"deliver_subject": "there"}, "is a push consumer"),
    ],
)
async def test_a_durable_that_cannot_be_changed_is_marked_and_stays(
    stage: Stage, by_hand: dict[str, Any], reason: str
) -> None:
    declare(stage)
    await operations.CreateConsumer(stream=stage.stream, durable_name="Billing", **by_hand).execute(
        stage.client
    )
    assert reason in await manage("nats_plan")
    with pytest.raises(CommandError, match="Objects marked x cannot be made as declared"):
        await manage("nats_apply", "--yes")
    assert await marks() == {f"{stage.stream}/Billing": "x"}


@pytest.mark.parametrize(
    ("by_hand", "mark"),
    [
        ({"max_age": 3600.0}, "~"),
        ({"description": "by hand"}, "~"),
        ({"subjects": ["STREAM.>", "more.STREAM"]}, "!"),
        ({"deny_delete": True}, "x"),
        ({"metadata": {"_nats.mine": "1"}}, ""),
    ],
)
async def test_a_stream_that_was_changed_by_hand_is_shown(
    stage: Stage, by_hand: dict[str, Any], mark: str
) -> None:
    declare(stage, stream_of(stage, description="ours", max_age=7200, deny_delete=False))
    await manage("nats_apply", "--yes", "--allow-data-loss")
    assert await marks() == {}
    given = {
        key: [each.replace("STREAM", stage.stream) for each in value]
        if key == "subjects"
        else value
        for key, value in by_hand.items()
    }
    await stage.jetstream.update_stream(StreamConfig(name=stage.stream, **given))
    assert await marks() == ({stage.stream: mark} if mark else {})


async def test_a_lower_limit_is_applied_only_with_the_option(stage: Stage) -> None:
    await stage.publish("one", "two", "three")
    declare(stage, stream_of(stage, max_msgs=1, description="new"))
    with pytest.raises(CommandError, match="Add --allow-data-loss") as left:
        await manage("nats_apply", "--yes")
    assert "max_msgs: no limit -> 1 (!)" in str(left.value)
    assert stage.server.stream(stage.stream)["state"]["messages"] == 3
    await manage("nats_apply", "--yes", "--allow-data-loss")
    assert stage.server.stream(stage.stream)["state"]["messages"] == 1


async def test_subjects_of_another_stream_name_it(
    stage: Stage, fresh: Callable[[str], str]
) -> None:
    name = fresh("other")
    declare(stage, operations.CreateStream(name=name, subjects=[f"{stage.stream}.paid"]))
    assert f"{stage.stream}.paid belongs to stream {stage.stream}" in await manage("nats_plan")
    assert (await marks())[name] == "x"


async def test_a_work_queue_whose_messages_another_durable_takes_is_found(
    stage: Stage, fresh: Callable[[str], str]
) -> None:
    queue = fresh("queue")
    await operations.CreateStream(
        name=queue, subjects=[f"{queue}.>"], retention="workqueue"
    ).execute(stage.client)
    await operations.CreateConsumer(
        stream=queue, durable_name="taker", filter_subject=f"{queue}.paid"
    ).execute(stage.client)
    declare(stage, stream_name=queue, filter_subject=f"{queue}.>")
    printed = await manage("nats_plan")
    assert "is a work queue: each message goes to one durable, and `taker` takes" in printed
    assert (await marks())[f"{queue}/Billing"] == "x"


async def test_a_stream_with_as_many_consumers_as_it_may_have_is_found(
    stage: Stage, fresh: Callable[[str], str]
) -> None:
    name = fresh("full")
    await operations.CreateStream(name=name, subjects=[f"{name}.>"], max_consumers=1).execute(
        stage.client
    )
    await operations.CreateConsumer(stream=name, durable_name="only").execute(stage.client)
    declare(stage, stream_name=name, filter_subject=f"{name}.>")
    assert "the stream has 1 consumers, and max_consumers is 1" in await manage("nats_plan")


async def test_a_durable_that_a_class_and_its_setup_declare_is_planned_once_and_applied(
    stage: Stage, fresh: Callable[[str], str]
) -> None:
    name = fresh("after")
    own = operations.CreateConsumer(
        stream=stage.stream, durable_name="Billing", filter_subject=f"{stage.stream}.paid"
    )
    reader = operations.CreateConsumer(stream=stage.stream, durable_name="reader")
    declare(stage, own, reader)
    declare(
        stage,
        reader,
        operations.CreateStream(name=name, subjects=[f"{name}.>"]),
        called="Later",
        stream_name=name,
        filter_subject=f"{name}.>",
    )
    wanted = {f"{stage.stream}/{each}": "+" for each in ("Billing", "reader")}
    assert await marks() == {**wanted, name: "+", f"{name}/Later": "+"}
    await manage("nats_apply", "--yes")
    assert await marks() == {}
    config = stage.server.consumer(stage.stream, "Billing")["config"]
    assert config["filter_subject"] == f"{stage.stream}.>", "as the class says"


async def test_a_durable_that_two_classes_would_share_has_an_x_and_the_others_are_applied(
    stage: Stage,
) -> None:
    for name in ("First", "Second"):
        declare(stage, called=name, durable_name="both")
    declare(stage, called="Third")
    assert await marks() == {f"{stage.stream}/both": "x", f"{stage.stream}/Third": "+"}
    assert "First and Second share it" in await manage("nats_plan")
    with pytest.raises(CommandError, match="Objects marked x cannot be made as declared"):
        await manage("nats_apply", "--yes")
    assert await marks() == {f"{stage.stream}/both": "x"}
    assert await marks("First") == {f"{stage.stream}/both": "+"}, "one of them may run alone"


async def test_durables_of_one_plan_that_do_not_fit_into_their_stream_are_found(
    stage: Stage, fresh: Callable[[str], str]
) -> None:
    name = fresh("small")
    await operations.CreateStream(name=name, subjects=[f"{name}.>"], max_consumers=1).execute(
        stage.client
    )
    for consumer in ("First", "Second"):
        declare(stage, called=consumer, stream_name=name, filter_subject=f"{name}.>")
    assert await marks() == {f"{name}/First": "+", f"{name}/Second": "x"}
    with pytest.raises(CommandError, match="Objects marked x cannot be made as declared"):
        await manage("nats_apply", "--yes")
    assert await marks() == {f"{name}/Second": "x"}


async def test_what_only_setup_does_is_listed_and_left(
    stage: Stage, fresh: Callable[[str], str]
) -> None:
    class Own(operations.StreamOperation):
        async def apply(self, jetstream: Any) -> None:
            raise AssertionError("only --setup runs it")

        def __repr__(self) -> str:
            return "Own()"

    name = fresh("gone")
    await operations.CreateStream(name=name, subjects=[f"{name}.>"]).execute(stage.client)
    await operations.CreateConsumer(stream=stage.stream, durable_name="old").execute(stage.client)
    declare(
        stage,
        operations.DeleteStream(name),
        operations.DeleteConsumer(stage.stream, "old"),
        Own(),
    )
    await manage("nats_apply", "--yes")
    assert await marks() == {name: "-", f"{stage.stream}/old": "-", "Own()": ">"}
    assert name in stage.server.streams()


async def test_a_durable_that_the_server_will_delete_is_not_shown(stage: Stage) -> None:
    declare(stage)
    ephemeral = operations.CreateConsumer(
        stream=stage.stream, durable_name="ForgetPrices-0fb818b630ac", inactive_threshold=300
    )
    await ephemeral.execute(stage.client)
    await manage("nats_apply", "--yes")
    assert await marks() == {}


async def test_a_durable_that_nothing_declares_is_shown_and_no_change(stage: Stage) -> None:
    declare(stage)
    await operations.CreateConsumer(stream=stage.stream, durable_name="old").execute(stage.client)
    await manage("nats_apply", "--yes")
    assert await marks() == {f"{stage.stream}/old": "?"}
    printed = await manage("nats_plan", "--check")
    assert "no class declares it; last active: never" in printed


async def test_a_renamed_class_is_told_the_line_that_continues_its_durable(stage: Stage) -> None:
    declare(stage, durable_name="Invoices")
    declare(stage, called="Reports")
    await manage("nats_apply", "--yes")
    await stage.publish(1)
    registry._declared.clear()
    declare(stage)
    declare(stage, called="Reports")
    advice = 'if it replaces Invoices, write durable_name = "Invoices" in Billing: it continues'
    assert advice in await manage("nats_plan")
    registry._declared.clear()
    declare(stage, durable_name="Invoices")
    declare(stage, called="Reports")
    assert await marks() == {}


async def test_a_new_class_is_not_told_to_continue_the_durable_of_another_class(
    stage: Stage,
) -> None:
    declare(stage, called="Reports")
    await manage("nats_apply", "--yes")
    await stage.publish(1)
    declare(stage)
    assert "if it replaces" not in await manage("nats_plan")


async def test_a_consumer_without_a_stream_is_found(stage: Stage) -> None:
    declare(stage, stream_name="nowhere", filter_subject="nowhere.>")
    assert "the stream nowhere does not exist, and no setup() creates it" in await manage(
        "nats_plan"
    )


async def test_apply_asks_and_stops_if_the_server_changed_meanwhile(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(stage, stream_of(stage, description="new"))
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert "Nothing was changed." in await manage("nats_apply")

    def changed_meanwhile(_: str) -> str:
        changing = operations.UpdateStream(name=stage.stream, description="other")
        asyncio.run(changing.execute())
        return "y"

    monkeypatch.setattr("builtins.input", changed_meanwhile)
    with pytest.raises(CommandError, match="has changed on the server since the plan"):
        await manage("nats_apply")
    assert stage.server.stream(stage.stream)["config"]["description"] == "other"
