"""Push subscriptions: the server sends the messages."""

from typing import TYPE_CHECKING

from nats_consumer.api import ConsumerInfo
from nats_consumer.client.subscription import Callback, Subscription
from nats_consumer.exceptions import MessageAlreadySettled

from .durables import Durables

if TYPE_CHECKING:
    from nats_consumer._native import Msg


class PushSubscription(Subscription):
    """A subscription to what a consumer sends; made by jetstream.subscribe(). Ending it leaves the
    consumer where it is."""

    _durables: Durables
    _stream: str
    _consumer: str

    def bind(self, durables: Durables, stream: str, consumer: str) -> None:
        """Say whose messages these are."""
        self._durables, self._stream, self._consumer = durables, stream, consumer

    async def consumer_info(self) -> ConsumerInfo:
        """How the consumer is configured and how far it is. That of an ordered subscription is
        recreated now and then, with another name."""
        consumer = self._native.consumer or self._consumer
        return await self._durables.consumer_info(self._stream, consumer)


def acknowledging(callback: Callback) -> Callback:
    """The callback, and then an acknowledgement unless it settled the message itself."""

    async def call(message: "Msg") -> None:
        await callback(message)
        if not message.is_acked:
            try:
                await message.ack()
            except MessageAlreadySettled:  # by a task that it started
                return

    return call
