"""Libraries that a test takes away, as if they were not installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nats_consumer.payloads import libraries


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """In the body, these cannot be imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, None)
        _look_again()
        yield
    _look_again()


def _look_again() -> None:
    libraries.msgspec.cache_clear()
    libraries.pydantic.cache_clear()
