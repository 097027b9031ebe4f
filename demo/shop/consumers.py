"""The shop's consumers. `manage.py nats_consumer` finds this file and runs every class in it.

A message is delivered at least once: after a crash, or a deploy that had to interrupt a handler,
it comes again. So each handler says what shall be, or is idempotent by the inbox.
"""

import logging

from django.db.models import F

from nats_consumer import (
    ErrorAckBehavior,
    JetstreamPullConsumer,
    JetstreamPushConsumer,
    Message,
    apublish,
    operations,
)

from . import events, payments
from .handlers import OrderHandler
from .models import Customer, PaymentAttempt, SearchEntry

logger = logging.getLogger(__name__)


class CountSales(JetstreamPullConsumer):
    """Adds each order to the account of its customer.

    Adding is not idempotent: a message that comes twice would count twice. The inbox writes a row
    for the message in the transaction of the handler, and skips a message whose row is there. A
    plain `def` runs in a thread of its own, where the ORM may block: four messages at a time.
    """

    stream_name = events.STREAM
    filter_subject = events.CREATED
    concurrency = 4
    idempotent = True

    def handle_message(self, order: events.OrderCreated):
        """The annotation has the payload decoded. One that cannot be is a dead letter at once."""
        customer, _ = Customer.objects.get_or_create(name=order.customer)
        customer.orders = F("orders") + 1
        customer.spent_cents = F("spent_cents") + int(order.total * 100)
        customer.save()


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

    async def handle_message(self, order: events.OrderCreated, message: Message):
        """A return settles the message as done; an exception has it delivered again."""
        try:
            await payments.charge(order, message.attempt)
        except payments.PaymentFailed as error:
            await self._remember(order, message.attempt, str(error))
            raise
        await self._remember(order, message.attempt)
        paid = events.OrderPaid(order.number)
        await apublish(paid, msg_id=events.msg_id(paid))

    async def handle_error(self, message, error, attempt):
        """Called once, when the last attempt has failed: the message becomes a dead letter."""
        number = message.json()["number"]
        logger.error("Order %d is not paid after %d attempts: %s.", number, attempt, error)

    async def _remember(self, order, attempt, error=""):
        await PaymentAttempt.objects.aupdate_or_create(
            order_number=order.number, attempt=attempt, defaults={"error": error}
        )


class IndexOrders(JetstreamPullConsumer):
    """Writes new orders to the search index, up to two hundred rows with one insert.

    A batch starts when it is full, or 0.2 seconds after its first message. If the insert fails, the
    batch is split until the guilty message stands alone. Rows that exist are left as they are, so a
    message that comes twice changes nothing.
    """

    stream_name = events.STREAM
    filter_subject = events.CREATED
    max_batch = 200
    max_batch_wait = 0.2

    def handle_batch(self, orders: list[events.OrderCreated]):
        """The annotation has each payload decoded."""
        rows = [
            SearchEntry(order_number=order.number, text=f"{order.number} {order.customer}")
            for order in orders
        ]
        SearchEntry.objects.bulk_create(rows, ignore_conflicts=True)


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
