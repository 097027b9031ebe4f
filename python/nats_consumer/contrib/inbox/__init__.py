"""An inbox: the rows that an idempotent handler writes happen once for each message. Add
"nats_consumer.contrib.inbox" to INSTALLED_APPS and migrate, and set `idempotent = True`."""

from .method import idempotent

__all__ = ["idempotent"]
