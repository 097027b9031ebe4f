"""A ConsumerHandler that gets what it has no method for."""

from typing import Any

import pytest

from nats_consumer import ConsumerHandler, ErrorAckBehavior
from tests.live.support.stage import Stage, running
from tests.waiting import becomes_true

pytestmark = pytest.mark.anyio


class SeedHandler(ConsumerHandler):
    """The fallback as the seed has it: keep the message elsewhere, then acknowledge it."""

    def __init__(self, subjects: list[str]) -> None:
        super().__init__(subjects)
        self.reasons: list[str] = []

    async def handle_created(self, message: Any) -> None: ...

    async def fallback_handle(self, msg: Any, reason: str = "unknown") -> None:
        self.reasons.append(reason)
        await self.send_to_dlq(msg, reason)
        await msg.ack()


async def test_message_sent_to_the_dead_letters_is_kept_and_settled(stage: Stage) -> None:
    own = SeedHandler([f"{stage.stream}.created", f"{stage.stream}.shipped"])

    class Orders(stage.Push):
        handler = own

        async def handle_message(self, message: Any) -> None:
            await self.handler.handle(message)

    async with running(Orders) as orders:
        await stage.publish("1", event="created")
        await stage.publish("2", event="shipped")
        await stage.publish("3", event="returned")
        await stage.everything_is_settled(Orders)
        await becomes_true(lambda: orders.total_success_count >= 1)
        assert orders.total_error_count == 0
    assert own.reasons == ["not_implemented", "unhandled_subject"]
    assert stage.server.stream(f"{stage.stream}-dlq")["state"]["messages"] == 2
    assert stage.consumer(Orders)["num_redelivered"] == 0


async def test_dead_letter_keeps_payload_headers_and_reason(stage: Stage) -> None:
    own = SeedHandler([f"{stage.stream}.created"])

    class Orders(stage.Pull):
        handler = own

        async def handle_message(self, message: Any) -> None:
            await self.handler.handle(message)

    letters = []

    class Letters(stage.Pull):
        stream_name = f"{stage.stream}-dlq"
        filter_subject = ">"

        async def handle_message(self, message: Any) -> None:
            letters.append(message)

    subject = f"{stage.stream}.returned"
    await stage.jetstream.publish(subject, b"7", headers={"Customer": "11"})
    async with running(Orders):
        await stage.everything_is_settled(Orders)
    async with running(Letters):
        await becomes_true(lambda: letters)
    [letter] = letters
    assert letter.data == b"7"
    assert letter.subject == f"dlq.{stage.stream}.Orders"
    expected = {
        "Customer": "11",
        "Dlq-Reason": "unhandled_subject",
        "Dlq-Subject": subject,
        "Dlq-Stream": stage.stream,
        "Dlq-Sequence": "1",
        "Dlq-Consumer": "Orders",
        "Dlq-Deliveries": "1",
    }
    assert expected.items() <= letter.headers.items()


async def test_missing_methods_are_told_at_the_start(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    class Orders(stage.Pull):
        handler = SeedHandler(["orders.created", "orders.shipped"])

        async def handle_message(self, message: Any) -> None: ...

    async with running(Orders):
        pass
    assert "SeedHandler has no handle_shipped" in caplog.text


async def test_what_the_default_fallback_hands_back_ends_where_the_final_word_is_a_dead_letter(
    stage: Stage,
) -> None:
    attempts: list[int] = []

    class Orders(stage.Pull):
        max_retries = 1
        max_retry_delay = 0.05
        handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER
        handler = ConsumerHandler([f"{stage.stream}.created"])

        async def handle_message(self, message: Any) -> None:
            attempts.append(message.attempt)
            await self.handler.handle(message)

    async with running(Orders):
        await stage.publish("7", event="returned")
        await stage.everything_is_settled(Orders)
    letter = await stage.jetstream.get_msg(f"{stage.stream}-dlq", 1)
    assert (letter.data, letter.headers["Dlq-Reason"]) == (b"7", "attempts exhausted")
    assert attempts[:2] == [1, 2]
