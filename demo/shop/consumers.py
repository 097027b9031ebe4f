"""The shop's consumers. `manage.py nats_consumer` finds this file and runs every class in it.

A message is delivered at least once: after a crash, or a deploy that had to interrupt a handler,
it comes again. So each handler says what shall be, never what to add.
"""

import logging

from nats_consumer import (
    ErrorAckBehavior,
    JetstreamPullConsumer,
    JetstreamPushConsumer,
    operations,
)

from . import events, payments
from .handlers import OrderHandler
from .models import Order, PaymentAttempt

logger = logging.getLogger(__name__)


class RecordOrders(JetstreamPullConsumer):
    """Writes new orders to the database.

    A plain `def` runs in a thread of its own, where the ORM may block: four messages at a time.
    """

    stream_name = events.STREAM
    filter_subject = events.CREATED
    concurrency = 4

    def handle_message(self, message):
        """A repeat of the message finds its order there and leaves the same row."""
        order = events.order_in(message)
        Order.objects.update_or_create(
            number=order["number"],
            defaults={"customer": order["customer"], "total": order["total"]},
        )


class ChargeCards(JetstreamPullConsumer):
    """Charges the card of each new order, fifty at a time on one event loop.

    A payment that fails is tried again after 0.5, 1 and 2 seconds. Meanwhile the message waits on
    the server, and nothing waits behind it. After the fourth attempt it goes to the stream
    `orders-dlq`, for someone to look at.
    """

    stream_name = events.STREAM
    filter_subject = events.CREATED
    batch_size = 50
    max_retries = 3
    initial_retry_delay = 0.5
    backoff_factor = 2.0
    handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER

    async def handle_message(self, message):
        """A return settles the message as done; an exception has it delivered again."""
        order = events.order_in(message)
        try:
            await payments.charge(order, message.attempt)
        except payments.PaymentFailed as error:
            await self._remember(order, message.attempt, str(error))
            raise
        await self._remember(order, message.attempt)
        await events.publish(events.PAID, order)

    async def handle_error(self, message, error, attempt):
        """Called once, when the last attempt has failed: the message becomes a dead letter."""
        number = events.order_in(message)["number"]
        logger.error("Order %d is not paid after %d attempts: %s.", number, attempt, error)

    async def _remember(self, order, attempt, error=""):
        await PaymentAttempt.objects.aupdate_or_create(
            order_number=order["number"], attempt=attempt, defaults={"error": error}
        )


class TrackOrders(JetstreamPushConsumer):
    """Follows every event of every order.

    A push consumer takes one message at a time, in the order of the stream. The server sends it up
    to a hundred ahead.
    """

    stream_name = events.STREAM
    filter_subject = "orders.*"
    max_ack_pending = 100

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.handler = OrderHandler()

    async def setup(self):
        """`manage.py nats_consumer --setup` creates the stream before it consumes from it."""
        return [
            operations.CreateStream(name=self.stream_name, subjects=["orders.*"], storage="file"),
        ]

    async def handle_message(self, message):
        """Route by subject; see handlers.py."""
        await self.handler.handle(message)
