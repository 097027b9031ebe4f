"""The outbox of a test run, which takes what would be sent by mistake."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import apublish, publish, publish_many, publish_on_commit
from nats_consumer.exceptions import ConfigurationError, NoResponders, Unreachable
from nats_consumer.publish import publisher, request
from nats_consumer.testing import capture_published, outbox

# A port that nobody listens on.
NOWHERE = {"servers": "nats://127.0.0.1:1", "allow_reconnect": False, "connect_timeout": 0.2}


@pytest.fixture(autouse=True)
def own_publishers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No connection of another test, and an empty outbox."""
    monkeypatch.setattr(publisher, "_publishers", {})
    outbox.clear()
    yield
    outbox.clear()


@pytest.fixture
def run(settings: Settings) -> None:
    """A test run that publishes nothing."""
    settings.NATS_CONSUMER = {"connect_args": NOWHERE, "publish_in_tests": False}


@pytest.mark.usefixtures("run")
@pytest.mark.django_db(transaction=True)
def test_a_test_run_that_forgets_to_capture_publishes_into_the_outbox() -> None:
    publish("one", b"")
    asyncio.run(apublish("two", b""))
    publish_many([("three", b"")])
    publish_on_commit("four", b"", outbox=False)
    with pytest.raises(NoResponders):
        request("five", b"")
    assert [each.subject for each in outbox] == ["one", "two", "three", "four", "five"]


@pytest.mark.usefixtures("run")
def test_a_capture_takes_messages_from_the_outbox() -> None:
    with capture_published() as published:
        publish("inner", b"")
    publish("outer", b"")
    assert [each.subject for each in published] == ["inner"]
    assert [each.subject for each in outbox] == ["outer"]


@pytest.mark.parametrize("given", [{}, {"publish_in_tests": True}])
def test_a_test_run_publishes_unless_the_settings_say_otherwise(
    settings: Settings, given: dict[str, Any]
) -> None:
    settings.NATS_CONSUMER = {"connect_args": NOWHERE, **given}
    with pytest.raises(Unreachable):
        publish("one", b"", timeout=0.5)
    assert outbox == []


@pytest.mark.usefixtures("run")
def test_outside_of_a_test_run_messages_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("django.test.utils._TestState.saved_data")
    with pytest.raises(Unreachable):
        publish("one", b"", timeout=0.5)


def test_a_value_that_is_neither_is_refused(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"publish_in_tests": "no"}
    with pytest.raises(ConfigurationError, match="must be True or False, not 'no'"):
        publish("one", b"")
