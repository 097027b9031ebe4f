"""One method per event: TrackOrders passes each message to the method that its subject names."""

from nats_consumer import ConsumerHandler, apublish, handle

from . import events
from .models import Milestone


class OrderHandler(ConsumerHandler):
    """Follows each order from the cart to the door."""

    @handle(events.OrderCreated)
    async def created(self, order: events.OrderCreated):
        """orders.created"""
        await self._reach(Milestone.Step.CREATED, order.number)

    @handle(events.OrderPaid)
    async def paid(self, order: events.OrderPaid):
        """orders.paid: the warehouse sends what is paid."""
        await self._reach(Milestone.Step.PAID, order.number)
        shipped = events.OrderShipped(order.number)
        await apublish(shipped, msg_id=events.msg_id(shipped))

    @handle(events.OrderShipped)
    async def shipped(self, order: events.OrderShipped):
        """orders.shipped"""
        await self._reach(Milestone.Step.SHIPPED, order.number)

    async def _reach(self, step: Milestone.Step, number: int) -> None:
        await Milestone.objects.aget_or_create(order_number=number, step=step)
