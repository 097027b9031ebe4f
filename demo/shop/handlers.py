"""One method per event: TrackOrders passes each message to the method that its subject names."""

from nats_consumer import ConsumerHandler

from . import events
from .models import Milestone


class OrderHandler(ConsumerHandler):
    """Follows each order from the cart to the door."""

    def __init__(self) -> None:
        super().__init__([events.CREATED, events.PAID, events.SHIPPED])

    async def handle_created(self, message):
        """orders.created"""
        await self._reach(Milestone.Step.CREATED, message)

    async def handle_paid(self, message):
        """orders.paid: the warehouse sends what is paid."""
        await self._reach(Milestone.Step.PAID, message)
        await events.publish(events.SHIPPED, events.order_in(message))

    async def handle_shipped(self, message):
        """orders.shipped"""
        await self._reach(Milestone.Step.SHIPPED, message)

    async def _reach(self, step: Milestone.Step, message) -> None:
        number = events.order_in(message)["number"]
        await Milestone.objects.aget_or_create(order_number=number, step=step)
