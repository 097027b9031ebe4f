"""The documentation's tests declare consumers freely: none of them stays registered."""

import pytest

from nats_consumer.declare import registry


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of its own for each test."""
    monkeypatch.setattr(registry, "_declared", {})
