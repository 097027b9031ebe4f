"""Names in subjects, against a real server."""

from typing import Any

import pytest

from nats_consumer import ConsumerHandler, apublish, handle
from tests.live.support.stage import Stage, running

pytestmark = pytest.mark.anyio


async def test_a_consumer_gets_what_was_published_to_its_template(stage: Stage) -> None:
    got: list[str] = []
    paid = stage.stream + ".{id}.paid"

    class Events(ConsumerHandler):
        @handle(paid)
        async def handle_paid(self, message: Any) -> None:
            got.append(message.subject)

    class Orders(stage.Pull):  # type: ignore[name-defined]
        filter_subject = paid
        events = Events()

        async def handle_message(self, message: Any) -> Any:
            return await self.events.handle(message)

    async with running(Orders):
        await apublish(paid, {"total": 1}, id=7)
        await apublish(stage.stream + ".8.created", {})
        await apublish(paid, {"total": 2}, id=9)
        await stage.everything_is_settled(Orders)
    assert got == [f"{stage.stream}.7.paid", f"{stage.stream}.9.paid"]
