"""Consume NATS JetStream from Django: declare consumers as classes, run them with
`manage.py nats_consumer`."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from .api import PubAck
from .client import get_nats_client
from .consumer import ErrorAckBehavior, JetstreamPullConsumer, JetstreamPushConsumer, NatsConsumer
from .current import current_message
from .handler import ConsumerHandler, handle
from .message import Message
from .outcomes import Ack, DeadLetter, Drop, Outcome, Retry
from .payloads.event import event
from .publish import (
    Outgoing,
    apublish,
    apublish_many,
    arequest,
    publish,
    publish_many,
    publish_many_on_commit,
    publish_on_commit,
    request,
)

__all__ = [
    "Ack",
    "ConsumerHandler",
    "DeadLetter",
    "Drop",
    "ErrorAckBehavior",
    "JetstreamPullConsumer",
    "JetstreamPushConsumer",
    "Message",
    "NatsConsumer",
    "Outcome",
    "Outgoing",
    "PubAck",
    "Retry",
    "apublish",
    "apublish_many",
    "arequest",
    "current_message",
    "event",
    "get_nats_client",
    "handle",
    "publish",
    "publish_many",
    "publish_many_on_commit",
    "publish_on_commit",
    "request",
]


if TYPE_CHECKING:
    __version__: str
else:
    # Not for type checkers: they would take every misspelled name for one that exists.
    def __getattr__(name: str) -> Any:
        # Looked up when somebody asks: every management command imports this.
        if name == "__version__":
            return version("django-nats-consumer")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
