"""Test support without a server: messages that run through your consumers in virtual time, single
deliveries, and captured messages."""

from .capture import Published, capture_published, outbox
from .case import NatsMixin, NatsTestCase, NatsTransactionTestCase
from .deliver import adeliver, deliver
from .message import FakeMessage, FakeMetadata, FakeSequencePair
from .model.attempts import Attempt
from .model.streams import NotModelled, StoredMessage
from .nats import Nats

__all__ = [
    "Attempt",
    "FakeMessage",
    "FakeMetadata",
    "FakeSequencePair",
    "Nats",
    "NatsMixin",
    "NatsTestCase",
    "NatsTransactionTestCase",
    "NotModelled",
    "Published",
    "StoredMessage",
    "adeliver",
    "capture_published",
    "deliver",
    "outbox",
]
