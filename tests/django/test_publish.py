"""Publishing, up to the engine; tests/live/test_publish.py has the rest."""

import asyncio
import importlib
import threading
from typing import Any

import pytest
from django.db import transaction

from nats_consumer import apublish, publish, publish_on_commit
from nats_consumer.exceptions import Unreachable


@pytest.fixture
def asked_from(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that looked for a server, each in vain."""
    threads: list[threading.Thread] = []

    def resolve(options: Any) -> None:
        threads.append(threading.current_thread())
        raise Unreachable("the embedded server did not start")

    module = importlib.import_module("nats_consumer.publish")  # the name is the function, too
    monkeypatch.setattr(module, "resolve", resolve)
    monkeypatch.setattr(module, "_publishers", {})
    return threads


def test_the_first_call_does_not_hold_up_the_event_loop(asked_from: list[Any]) -> None:
    with pytest.raises(Unreachable):
        asyncio.run(apublish("orders.created", {}))
    assert asked_from
    assert threading.main_thread() not in asked_from


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_published_on_commit_is_raised(asked_from: list[Any]) -> None:
    with pytest.raises(Unreachable), transaction.atomic():
        publish_on_commit("orders.created", {})


@pytest.mark.django_db(transaction=True)
def test_what_cannot_be_published_on_commit_is_logged_if_it_is_to_be_robust(
    asked_from: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []
    with transaction.atomic():
        publish_on_commit("orders.created", {}, robust=True)
        transaction.on_commit(lambda: done.append("another"))
    assert asked_from
    assert done == ["another"]
    assert "the embedded server did not start" in caplog.text


def test_what_json_cannot_say_is_refused_before_a_server_is_looked_for(
    asked_from: list[Any],
) -> None:
    with pytest.raises(TypeError):
        publish("orders.created", object())
    assert asked_from == []
