"""A push consumer that routes by subject, as in a shop. STREAM in the environment names the
stream and is the first token of its subjects."""

import logging
import os
from typing import Any

from nats_consumer import ConsumerHandler, JetstreamPushConsumer, handle, operations

logger = logging.getLogger("nats_consumer.tests")

STREAM = os.environ.get("STREAM", "orders")
SUBJECTS = [f"{STREAM}.created", f"{STREAM}.cancelled", f"{STREAM}.shipped.abroad"]


class OrderHandler(ConsumerHandler):
    def __init__(self) -> None:
        super().__init__(SUBJECTS[:1])

    async def handle_created(self, message: Any) -> None:
        logger.info("created %s", message.data.decode())

    @handle(f"{STREAM}.cancelled")
    def cancel(self, message: Any) -> None:
        logger.info("cancelled %s", message.data.decode())

    @handle(f"{STREAM}.shipped.*")
    async def ship(self, message: Any) -> None:
        logger.info("shipped %s", message.data.decode())


class OrderConsumer(JetstreamPushConsumer):
    stream_name = STREAM
    subjects = SUBJECTS
    filter_subject = f"{STREAM}.>"
    initial_retry_delay = 0.1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.handler = OrderHandler()

    async def setup(self) -> list[operations.StreamOperation]:
        return [operations.CreateStream(name=STREAM, subjects=[f"{STREAM}.>"], storage="file")]

    async def handle_message(self, message: Any) -> None:
        await self.handler.handle(message)
