"""JetStream over an open connection: publishing, streams, consumers, and subscriptions to them."""

from .context import JetStreamContext
from .streams import merged

__all__ = ["JetStreamContext", "merged"]
