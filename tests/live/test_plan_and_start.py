"""A plan and a start agree, whatever is declared and whatever is on the server."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nats_consumer import JetstreamPullConsumer, Message, get_nats_client
from nats_consumer.declare import registry
from nats_consumer.declare.options import ConsumerOptions, consumer_options
from nats_consumer.exceptions import StreamMismatch, StreamNotFound


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> ConsumerOptions:
    """The options of a consumer."""
    monkeypatch.setattr(registry, "_declared", {})

    class Planned(JetstreamPullConsumer):
        stream_name = "planned"
        filter_subject = "p.>"

        async def handle_message(self, message: Message) -> None: ...

    return consumer_options(Planned)


DECLARATIONS = st.fixed_dictionaries(
    {},
    optional={
        "ack_wait": st.sampled_from([1.0, 30.0, 60.0]),
        "max_ack_pending": st.sampled_from([1, 50, 1000]),
        "filter_subjects": st.lists(st.sampled_from(["p.a", "p.*.b", "p.>"]), max_size=1),
        "kind": st.sampled_from(["pull", "push"]),
        "concurrency": st.sampled_from([1, 100, 15_000]),
    },
)


@given(before=DECLARATIONS, after=DECLARATIONS)
@hypothesis_settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_a_plan_names_exactly_the_fields_that_a_start_changes(
    before: dict[str, Any], after: dict[str, Any], declared: ConsumerOptions
) -> None:
    async def check() -> None:
        async with await get_nats_client() as client:
            jetstream, connection = client.jetstream(), client._connection
            with suppress(StreamNotFound):
                await jetstream.delete_stream("planned")
            await jetstream.add_stream(name="planned", subjects=["p.>"])
            await connection.apply_durable(replace(declared, **before))
            found = (await jetstream.consumer_info("planned", "Planned")).config.as_dict()
            options = replace(declared, **after)
            _, action, changes, *_ = await connection.plan_durable(options)
            if action == "refuse":
                with pytest.raises(StreamMismatch):
                    await connection.apply_durable(options)
                return
            await connection.apply_durable(options)
            then = (await jetstream.consumer_info("planned", "Planned")).config.as_dict()
            fields = {name for name in found | then if found.get(name) != then.get(name)}
            planned = {name for name, _, _ in changes}
            # One that nobody declares fits the other options, and alone it is no change.
            assert fields - planned <= {"max_ack_pending"} - after.keys()
            assert planned <= fields
            assert (action == "change") == bool(planned)
            assert (await connection.plan_durable(options))[1] == "keep"

    asyncio.run(check())
