"""Tests that publish from a process without a publisher, and leave none."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nats_consumer import _native
from nats_consumer.publish.publisher import _publishers


@contextmanager
def own_publishers() -> Iterator[None]:
    """Forget the publishers before, and close those of the body after it."""
    _publishers.clear()
    yield
    for publisher in _publishers.values():
        assert isinstance(publisher, _native.Publisher)
        publisher.close(1.0)
    _publishers.clear()


@pytest.fixture(autouse=True)
def no_publisher_is_left() -> Iterator[None]:
    """Importing this fixture closes what each test of a file has opened."""
    with own_publishers():
        yield
