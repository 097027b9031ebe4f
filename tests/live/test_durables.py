"""Which durable a consumer gets, and where it stands."""

import json
from typing import Any

import pytest

from nats_consumer import JetstreamPullConsumer, JetstreamPushConsumer
from nats_consumer.declare.options import consumer_options
from nats_consumer.exceptions import StreamMismatch
from nats_consumer.run.batch_dispatch import dispatch_for
from nats_consumer.run.consume import consume
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio

OLDER = {
    "push": {"deliver_subject": "default.deliver"},
    "pull": {},
}


async def make_older_durable(stage: Stage, kind: str, **config: Any) -> None:
    """The durable that older versions made for every class that named none."""
    request = {
        "stream_name": stage.stream,
        "config": {
            "durable_name": "default",
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "filter_subject": f"{stage.stream}.>",
            **OLDER[kind],
            **config,
        },
    }
    subject = f"$JS.API.CONSUMER.DURABLE.CREATE.{stage.stream}.default"
    answer = await stage.client.request(subject, json.dumps(request).encode(), timeout=5)
    assert "error" not in json.loads(answer.data)


def noting(stage: Stage, base: type, name: str = "Orders", **attributes: Any) -> Any:
    """A consumer that notes the payloads it handled in `seen`."""

    async def handle_message(self: Any, message: Any) -> None:
        self.seen.append(message.data.decode())

    return type(name, (base,), {"seen": [], "handle_message": handle_message, **attributes})


@pytest.mark.parametrize(
    ("first", "second"), [("Push", "Pull"), ("Push", "Push"), ("Pull", "Pull")]
)
async def test_two_classes_that_name_no_durable_both_get_everything(
    stage: Stage, first: str, second: str
) -> None:
    orders = noting(stage, getattr(stage, first), "OrderConsumer")
    batches = noting(stage, getattr(stage, second), "BatchOrderConsumer")
    async with running(orders), running(batches):
        await stage.publish(*range(20))
        await stage.everything_is_settled(orders)
        await stage.everything_is_settled(batches)
    assert sorted(map(int, orders.seen)) == list(range(20))
    assert sorted(map(int, batches.seen)) == list(range(20))


async def test_position_survives_a_restart(stage: Stage) -> None:
    first, second = noting(stage, stage.Pull), noting(stage, stage.Pull)
    async with running(first):
        await stage.publish("one", "two")
        await stage.everything_is_settled(first)
    await stage.publish("three")
    async with running(second):
        await stage.everything_is_settled(second)
    assert (first.seen, second.seen) == (["one", "two"], ["three"])


@pytest.mark.parametrize(
    "kind",
    [
        "pull",
        "push",
    ],
)
async def test_older_default_durable_is_taken_over_with_its_position(
    stage: Stage, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "nats_consumer")
    base = getattr(stage, kind.title())
    await make_older_durable(stage, kind)
    before = noting(stage, base, durable_name="default")
    async with running(before):
        await stage.publish("one", "two")
        await becomes_true(lambda: len(before.seen) == 2, within=3)
    await stage.publish("three")
    after = noting(stage, base)
    async with running(after):
        await becomes_true(lambda: after.seen)
        assert after.seen == ["three"]
    assert set(durables(stage)) == {"default"}
    assert "(durable default, " in caplog.text


@pytest.mark.parametrize(
    "config",
    [{"filter_subject": "elsewhere.>"}, {"deliver_subject": "default.deliver"}],
    ids=["another filter", "another kind"],
)
async def test_default_durable_of_another_class_is_left_alone(
    stage: Stage, config: dict[str, str]
) -> None:
    await make_older_durable(stage, "pull", **config)
    orders = noting(stage, stage.Pull)
    async with running(orders):
        await stage.publish("one")
        await stage.everything_is_settled(orders)
    assert set(durables(stage)) == {"default", "Orders"}
    assert stage.server.consumer(stage.stream, "default")["delivered"]["consumer_seq"] == 0


async def test_durable_name_of_the_class_goes_first(stage: Stage, settings: Any) -> None:
    settings.NATS_CONSUMER = {**settings.NATS_CONSUMER, "default_durable_name": "the-project"}
    named = noting(stage, stage.Pull, durable_name="mine")
    unnamed = noting(stage, stage.Pull, "Unnamed")
    async with running(named), running(unnamed):
        await stage.publish("one")
        await becomes_true(lambda: named.seen and unnamed.seen)
    assert set(durables(stage)) == {"mine", "the-project"}


async def test_filter_lets_only_its_subjects_through(stage: Stage) -> None:
    s = stage.stream
    exact = noting(stage, stage.Pull, "Exact", filter_subject=f"{s}.created")
    wild = noting(stage, stage.Push, "Wild", filter_subject=f"{s}.*.failed")
    several = noting(
        stage,
        stage.Pull,
        "Several",
        filter_subject=None,
        filter_subjects=[f"{s}.created", f"{s}.paid.failed"],
    )
    whole = noting(stage, stage.Push, "Whole", filter_subject=">")
    async with running(exact), running(wild), running(several), running(whole):
        await stage.publish("1", event="created")
        await stage.publish("2", event="paid.failed")
        await stage.publish("3", event="shipped")
        await becomes_true(lambda: len(whole.seen) == 3 and len(several.seen) == 2)
        await becomes_true(lambda: exact.seen and wild.seen)
    assert (exact.seen, wild.seen, sorted(several.seen)) == (["1"], ["2"], ["1", "2"])


@pytest.mark.parametrize("base", [JetstreamPushConsumer, JetstreamPullConsumer])
async def test_without_a_filter_the_first_subject_is_it_and_a_warning_names_the_others(
    stage: Stage, base: type, caplog: pytest.LogCaptureFixture
) -> None:
    subjects = [f"{stage.stream}.created", f"{stage.stream}.paid"]
    orders = noting(stage, base, stream_name=stage.stream, subjects=subjects)
    async with running(orders):
        await stage.publish("no", event="paid")
        await stage.publish("yes", event="created")
        await becomes_true(lambda: orders.seen)
    assert orders.seen == ["yes"]
    assert f"These subjects do not arrive: {stage.stream}.paid" in caplog.text


def durables(stage: Stage) -> list[str]:
    detail = stage.server.stream(stage.stream)["consumer_detail"]
    return [consumer["name"] for consumer in detail]


async def test_a_durable_of_the_other_kind_is_refused_with_the_way_to_delete_it(
    stage: Stage,
) -> None:
    async with running(noting(stage, stage.Pull)):
        pass
    changed = noting(stage, stage.Push)()
    deletion = rf"once: operations\.DeleteConsumer\('{stage.stream}', 'Orders'\) in a migration"
    with pytest.raises(StreamMismatch, match=deletion):
        await consume(consumer_options(changed), dispatch_for(changed, 1))
