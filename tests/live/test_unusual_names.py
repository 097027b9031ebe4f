"""Names of streams, durables and subjects may be of any script, and have '%' in them."""

from collections.abc import Callable
from typing import Any

import pytest

from nats_consumer import DeadLetter, ErrorAckBehavior
from nats_consumer.dead_letters import Selection, dead_letters
from tests.live.support.stage import Stage, running

pytestmark = pytest.mark.anyio

DURABLE = "prüfung%s"
EVENTS = ["bestellt.größe.100%.v1", "%s.%d", "注文", "a%20b.ü%"]


@pytest.fixture
def stream_name(fresh: Callable[[str], str]) -> str:
    return fresh("größe%d-注文")


@pytest.mark.parametrize("base", ["Pull", "Push"])
async def test_retries_and_dead_letters_work_under_unusual_names(stage: Stage, base: str) -> None:
    seen: list[tuple[str, int]] = []

    async def handle_message(_self: Any, message: Any) -> None:
        seen.append((message.subject, message.attempt))
        if message.attempt == 1:
            raise ValueError("again")
        raise DeadLetter("geht nicht: 100 %")

    attributes = {
        "handle_message": handle_message,
        "handle_error_ack_behavior": ErrorAckBehavior.DEAD_LETTER,
        "durable_name": DURABLE,
    }
    consumer = type(DURABLE, (getattr(stage, base),), attributes)
    for event in EVENTS:
        await stage.publish(event, event=event)
    async with running(consumer):
        await stage.everything_is_settled(consumer)
    subjects = [f"{stage.stream}.{event}" for event in EVENTS]
    assert sorted(seen) == sorted((subject, attempt) for subject in subjects for attempt in (1, 2))
    with dead_letters() as letters:
        kept = list(letters.select(stage.stream, Selection()))
        assert sorted(letter.subject for letter in kept) == sorted(subjects)
        assert {letters.replay(letter)[0] for letter in kept} == {stage.stream}
