"""The asyncio client: a connection with nats-py's names."""

from .client import Client, get_nats_client

__all__ = ["Client", "get_nats_client"]
