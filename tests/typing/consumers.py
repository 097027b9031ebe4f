"""Consumers of a project, as mypy sees them. Each comment names an error: if that is missing,
`make lint` fails."""

from uuid import UUID

from nats_consumer import (
    ConsumerHandler,
    JetstreamPullConsumer,
    Message,
    Outcome,
    Retry,
    handle,
    operations,
    publish,
)
from nats_consumer.testing import FakeMessage


class Orders(JetstreamPullConsumer):
    stream_name = "orders"
    filter_subject = "orders.{number}.paid"

    def setup(self) -> list[operations.StreamOperation]:
        return [operations.CreateStream(name="orders", subjects=["orders.>"])]

    async def handle_message(self, message: Message) -> Outcome | None:
        await message.ack()
        return Retry(after=message.json()["after"]) if message.attempt == 1 else None

    async def handle_error(self, message: Message, error: Exception, attempt: int) -> None:
        assert message.subject == str(error) * attempt


class Async(JetstreamPullConsumer):
    async def setup(self) -> operations.CreateStream:
        return operations.CreateStream(name="orders", subjects=["orders.>"])

    def handle_message(self, msg: Message, number: int) -> None:
        msg.ack()

    def handle_error(self, msg: Message, exc: BaseException, count: int) -> Outcome | None:
        return None


class Wrong(JetstreamPullConsumer):
    def setup(self) -> str:  # type: ignore[override]
        return "orders"

    def handle_error(self, message: Message) -> None:  # type: ignore[override]
        return


class Events(ConsumerHandler):
    @handle("orders.{number}.paid")
    def handle_paid(self, message: Message, number: UUID) -> None:
        assert message.data == number.bytes

    async def fallback_handle(self, msg: Message, reason: str = "unknown") -> None:
        await msg.term(reason)


fake: Message = FakeMessage({"number": 7}, subject="orders.7.paid")
Async().handle_message(fake, 7)
publish("orders.{number}.paid", {}, number=7)
publish("orders.{number}.paid", {}, number=7.5)  # type: ignore[call-overload]
