"""The metrics of this process, for an endpoint of your own."""

from . import _native

__all__ = ["text"]


def text() -> str:
    """Return the metrics of this process in the text format of Prometheus, version 0.0.4."""
    return _native.metrics_text()
