"""Values of NATS_CONSUMER."""

from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer import settings as ours
from nats_consumer.exceptions import ConfigurationError


def test_a_project_without_the_setting_gets_the_defaults(settings: Settings) -> None:
    del settings.NATS_CONSUMER
    assert ours.connect_args() == {}
    assert ours.default_durable_name() is None
    assert ours.event_loop_policy() is None
    assert ours.shutdown_timeout() == 25
    assert ours.max_threads() == 32


@pytest.mark.parametrize("key", ["default_durable_name", "DEFAULT_DURABLE_NAME"])
def test_the_default_durable_is_read_in_either_spelling(settings: Settings, key: str) -> None:
    settings.NATS_CONSUMER = {key: "my-app"}
    assert ours.default_durable_name() == "my-app"


def test_an_unknown_key_is_refused_with_the_one_that_was_meant(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"conect_args": {}}
    with pytest.raises(ConfigurationError, match=r"'conect_args'.*Did you mean 'connect_args'"):
        ours.check_keys(())


def test_the_setting_must_be_a_dict(settings: Settings) -> None:
    settings.NATS_CONSUMER = ["nats://localhost:4222"]
    with pytest.raises(ConfigurationError, match="must be a dict, not list"):
        ours.connect_args()


@pytest.mark.parametrize("value", ["25", -1, None, True, float("nan"), float("inf")])
def test_a_shutdown_timeout_that_is_no_number_is_refused(settings: Settings, value: object) -> None:
    settings.NATS_CONSUMER = {"shutdown_timeout": value}
    with pytest.raises(ConfigurationError, match="shutdown_timeout"):
        ours.shutdown_timeout()


@pytest.mark.parametrize("key", ["workers", "max_messages", "max_rss"])
def test_numbers_of_workers_are_whole_and_at_least_one(settings: Settings, key: str) -> None:
    read = getattr(ours, key)
    for value in (0, -1, 1.5, "2", True):
        settings.NATS_CONSUMER = {key: value}
        with pytest.raises(ConfigurationError, match=rf'NATS_CONSUMER\["{key}"\] must be a whole'):
            read()
    settings.NATS_CONSUMER = {key: 4}
    assert (read(), read(8)) == (4, 8)
    with pytest.raises(ConfigurationError, match=f"--{key.replace('_', '-')} must be"):
        read(0)


@pytest.mark.parametrize("key", ["ready_grace", "worker_start_timeout", "hung_after"])
def test_times_of_workers_are_numbers(settings: Settings, key: str) -> None:
    settings.NATS_CONSUMER = {key: "soon"}
    with pytest.raises(ConfigurationError, match=rf'NATS_CONSUMER\["{key}"\] must be a number'):
        getattr(ours, key)()


def test_manage_durables_is_true_or_false(settings: Settings) -> None:
    settings.NATS_CONSUMER = {}
    assert ours.manage_durables()
    settings.NATS_CONSUMER = {"manage_durables": "no"}
    with pytest.raises(ConfigurationError, match="must be True or False, not 'no'"):
        ours.manage_durables()


def test_the_embedded_store_is_beside_the_project_unless_told_otherwise(
    settings: Settings, tmp_path: Path
) -> None:
    settings.BASE_DIR = tmp_path
    settings.NATS_CONSUMER = {}
    assert ours.embedded_store() == tmp_path / ".nats"
    settings.NATS_CONSUMER = {"embedded_store": "/srv/nats"}
    assert ours.embedded_store() == Path("/srv/nats")


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (None, None),
        ("127.0.0.1:9464", "127.0.0.1:9464"),
        (":9464", "127.0.0.1:9464"),
        ("localhost:0", "localhost:0"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("[::1]:9464", "[::1]:9464"),
    ],
)
def test_a_port_without_a_host_is_one_of_loopback(
    settings: Settings, value: object, address: str | None
) -> None:
    settings.NATS_CONSUMER = {"http": value}
    assert ours.http() == address


@pytest.mark.parametrize(
    "value",
    [
        9464,
        True,
        "",
        "9464",
        "localhost",
        "a:b",
        "a:-1",
        "a:65536",
        "::1:9464",
        "http://a:1",
        "a b:1",
    ],
)
def test_an_address_that_nothing_can_listen_at_is_refused(
    settings: Settings, value: object
) -> None:
    settings.NATS_CONSUMER = {"http": value}
    with pytest.raises(ConfigurationError, match=r'NATS_CONSUMER\["http"\] must be host and port'):
        ours.http()


def test_the_command_line_comes_before_the_setting_http(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"http": ":1"}
    assert ours.http(":2") == "127.0.0.1:2"
    with pytest.raises(ConfigurationError, match="--http must be host and port"):
        ours.http("nonsense")


def test_loopback_is_told_from_what_others_reach() -> None:
    assert all(map(ours.is_loopback, ("127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:1")))
    assert not any(map(ours.is_loopback, ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "shop:1")))


def test_a_connection_has_arguments_of_its_own(settings: Settings) -> None:
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": "a:1", "name": "shop"},
        "connections": {"analytics": {"servers": "b:1"}},
    }
    assert ours.connections() == ("default", "analytics")
    assert ours.connect_args() == {"servers": "a:1", "name": "shop"}
    assert ours.connect_args("analytics") == {"servers": "b:1"}


@pytest.mark.parametrize("alias", ["analitics", "", None, ["analytics"]])
def test_an_unknown_connection_is_named_with_those_that_exist(
    settings: Settings, alias: Any
) -> None:
    settings.NATS_CONSUMER = {"connections": {"analytics": {}}}
    with pytest.raises(ConfigurationError) as caught:
        ours.connect_args(alias)
    assert f"There is no connection {alias!r}." in str(caught.value)
    assert "default, analytics." in str(caught.value)


@pytest.mark.parametrize(
    ("connections", "message"),
    [
        (["analytics"], r'NATS_CONSUMER\["connections"\] must be a dict'),
        ({"default": {}}, "cannot have the key 'default'"),
        ({7: {}}, "must be a string, not 7"),
        ({"a/b": {}}, "cannot contain slashes"),
        ({"": {}}, "is empty"),
    ],
)
def test_connections_that_cannot_be_are_refused(
    settings: Settings, connections: Any, message: str
) -> None:
    settings.NATS_CONSUMER = {"connections": connections}
    with pytest.raises(ConfigurationError, match=message):
        ours.connections()


def test_each_connection_has_a_store_of_its_own_for_an_embedded_server(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"embedded_store": "/srv/nats"}
    assert ours.embedded_store() == Path("/srv/nats")
    assert ours.embedded_store("analytics") == Path("/srv/nats-analytics")
