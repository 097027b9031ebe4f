"""Handler classes: several handlers for one consumer, by subject."""

from .declare.handler import ConsumerHandler, handle

__all__ = ["ConsumerHandler", "handle"]
