"""A password, a token or a seed is used and never shown: not by errors, reprs, logs, nor Django."""

import asyncio
import logging
import sys
from types import TracebackType
from typing import Any, cast

import pytest
from django.conf import settings as django_settings
from django.test import RequestFactory
from django.views.debug import technical_500_response
from pytest_django import Settings

from nats_consumer import get_nats_client, publish
from nats_consumer.connect.args import connect_options
from nats_consumer.connect.resolve import display_servers
from nats_consumer.exceptions import NatsConsumerError

# Put together, so that no line of source code that a page quotes holds them.
WORD = "hunter" + "2"
SEED = "SU" + "ACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
CLOSED = "127.0.0.1:1"

Raised = tuple[type[BaseException], BaseException, TracebackType]
SETTINGS: list[dict[str, Any]] = [
    {"servers": CLOSED, "user": "shop", "password": WORD},
    {"servers": CLOSED, "user": "shop", "password": WORD.encode()},
    {"servers": CLOSED, "token": WORD},
    {"servers": CLOSED, "nkeys_seed_str": SEED},
    {"servers": CLOSED, "nkeys_seed": SEED},
    {"servers": CLOSED, "token": WORD, "connect_timeout": "soon"},
    {"servers": CLOSED, "password": WORD},
    {"servers": [f"nats://shop:{WORD}@{CLOSED}"]},
    {"servers": f"nats://shop:{WORD}@{CLOSED}, nats://{WORD}@127.0.0.1:2"},
    {"servers": [f"nats://shop:{WORD}@127.0.0.1:99999"]},
    {"servers": (f"http://shop:{WORD}@127.0.0.1",)},
    {"servers": {f"nats://shop:{WORD}@127.0.0.1"}},
]


async def _connect(**arguments: Any) -> None:
    await get_nats_client(connect_timeout=0.2, **arguments)


def raised_by(how: str) -> Raised:
    try:
        if how == "publish":
            publish("orders.created", {}, timeout=0.2)
        else:
            asyncio.run(_connect())
    except NatsConsumerError:
        return cast("Raised", sys.exc_info())
    raise AssertionError("it connected")


def raised_by_arguments() -> Raised:
    arguments = django_settings.NATS_CONSUMER["connect_args"]
    try:
        asyncio.run(get_nats_client(**{"connect_timeout": 0.2, **arguments}))
    except NatsConsumerError:
        return cast("Raised", sys.exc_info())
    finally:
        del arguments  # what a project's own functions hold is theirs to hide
    raise AssertionError("it connected")


def shown(raised: Raised) -> str:
    """The debug page without the settings, which Django itself hides by their names."""
    page, settings_begin, _ = page_of(raised).partition('<h3 id="settings-info">')
    assert settings_begin
    return page


def page_of(raised: Raised) -> str:
    """Django's debug page."""
    return technical_500_response(RequestFactory().get("/"), *raised).content.decode()


@pytest.fixture(autouse=True)
def debugging(settings: Settings) -> None:
    """A project without any view, whose errors Django shows."""
    settings.DEBUG = True
    settings.ROOT_URLCONF = ()


@pytest.mark.parametrize("arguments", SETTINGS)
@pytest.mark.parametrize("how", ["client", "publish", "arguments"])
def test_no_secret_is_on_djangos_debug_page(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    how: str,
) -> None:
    monkeypatch.setattr(sys.modules["nats_consumer.publish.publisher"], "_publishers", {})
    settings.NATS_CONSUMER = {"connect_args": arguments}
    raised = raised_by_arguments() if how == "arguments" else raised_by(how)
    page = shown(raised)
    assert type(raised[1]).__name__ in page
    for secret in (WORD, SEED):
        assert secret not in page


@pytest.mark.parametrize("arguments", SETTINGS[:4] + SETTINGS[7:9])
def test_no_secret_is_in_a_repr_an_error_or_a_log(
    settings: Settings, arguments: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    settings.NATS_CONSUMER = {"connect_args": arguments}
    caplog.set_level(logging.DEBUG)
    options = connect_options()
    _, error, _ = raised_by("client")
    logging.getLogger("shop").error("%r %s", options, options, exc_info=error)
    texts = [repr(options), str(options), repr(error), str(error), caplog.text]
    texts += [display_servers(None), f"{options}", repr(error.__cause__)]
    for secret in (WORD, SEED):
        assert not [text for text in texts if secret in text]
    assert "127.0.0.1:1" in repr(options)


def test_the_secrets_themselves_reach_the_engine_unchanged() -> None:
    options = connect_options(
        {"servers": f"nats://shop:{WORD}@{CLOSED}", "user": "shop", "password": WORD}
    )
    assert options.password == WORD
    assert options.servers == [f"nats://shop:{WORD}@{CLOSED}"]


@pytest.mark.parametrize("name", ["password", "token", "nkeys_seed", "nkeys_seed_str"])
def test_django_itself_hides_the_settings_that_are_secret(settings: Settings, name: str) -> None:
    settings.NATS_CONSUMER = {"connect_args": {"servers": CLOSED, name: SEED}}
    try:
        raise ValueError("a view's own")
    except ValueError:
        raised = cast("Raised", sys.exc_info())
    page = page_of(raised)
    assert "connect_args" in page
    assert SEED not in page
