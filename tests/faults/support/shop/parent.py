"""The WSGI application of a server that publishes before it forks, as `--preload` allows."""

from orders.publishing import published
from web import wsgi

__all__ = ["wsgi"]

published("first")
