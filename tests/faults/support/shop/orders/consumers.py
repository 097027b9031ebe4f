"""The consumers: by pull and by push, `async def` and `def`; a test gives their attributes."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nats_consumer import ErrorAckBehavior, JetstreamPullConsumer, JetstreamPushConsumer
from orders.ledger import note
from orders.models import Effect
from orders.work import harm, seconds

STREAM = os.environ.get("FAULTS_STREAM")
ATTRIBUTES = json.loads(os.environ.get("FAULTS_ATTRIBUTES", "{}"))


@contextmanager
def noted(message: Any, consumer: str) -> Iterator[dict[str, Any]]:
    """The order in the message; its beginning and its end go to the ledger."""
    order = json.loads(message.data)
    line = {
        "id": order["id"],
        "consumer": consumer,
        "seq": message.metadata.sequence.stream,
        "delivery": message.metadata.num_delivered,
    }
    note("handled", event="START", **line)
    try:
        yield order
    except asyncio.CancelledError:
        note("handled", event="CANCELLED", **line)
        raise
    except BaseException as error:
        note("handled", event="FAIL", error=type(error).__name__, **line)
        raise
    note("handled", event="DONE", **line)


async def _leave() -> None:
    sys.exit("the order asks for it")


class OnTheLoop:
    """A handler of the event loop."""

    async def handle_message(self, message: Any) -> None:
        with noted(message, type(self).__name__) as order:
            await asyncio.sleep(seconds(order))
            if order.get("do") == "leave in a task":
                await asyncio.create_task(_leave())
            harm(order, message.attempt)
            await Effect.objects.acreate(order=order["id"], consumer=type(self).__name__)


class InThreads:
    """A handler of threads."""

    def handle_message(self, message: Any) -> None:
        with noted(message, type(self).__name__) as order:
            time.sleep(seconds(order))
            harm(order, message.attempt)
            Effect.objects.create(order=order["id"], consumer=type(self).__name__)


class Pulled(OnTheLoop, JetstreamPullConsumer):
    stream_name = STREAM


class Pushed(OnTheLoop, JetstreamPushConsumer):
    stream_name = STREAM


class PulledInThreads(InThreads, JetstreamPullConsumer):
    stream_name = STREAM


class PushedInThreads(InThreads, JetstreamPushConsumer):
    stream_name = STREAM


for consumer in (Pulled, Pushed, PulledInThreads, PushedInThreads):
    consumer.handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER
    for name, value in ATTRIBUTES.items():
        setattr(consumer, name, value)
