"""connect_args become ConnectOptions."""

import re
import ssl
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from nats_consumer.client.events import Callbacks
from nats_consumer.connect import embedded
from nats_consumer.connect.args import connect_callbacks, connect_options
from nats_consumer.connect.resolve import display_servers, resolve
from nats_consumer.exceptions import ConfigurationError, InvalidCallback


@pytest.fixture(autouse=True)
def no_settings(settings: Settings) -> None:
    settings.NATS_CONSUMER = {}


def test_the_seeds_settings_are_understood() -> None:
    options = connect_options(
        {
            "servers": ["nats://localhost:4222"],
            "allow_reconnect": True,
            "max_reconnect_attempts": 5,
            "reconnect_time_wait": 1,
            "connect_timeout": 10,
        }
    )
    assert options.servers == ["nats://localhost:4222"]
    assert options.max_reconnect_attempts == 5
    assert options.reconnect_time_wait == 1.0
    assert options.connect_timeout == 10.0


def test_without_servers_it_is_the_local_one() -> None:
    assert connect_options().servers == ["nats://127.0.0.1:4222"]


@pytest.mark.parametrize("servers", ["a:1, b:2", ["a:1", "b:2"], ("a:1", "b:2")])
def test_several_servers_are_a_list_or_a_text_with_commas(servers: Any) -> None:
    assert connect_options({"servers": servers}).servers == ["a:1", "b:2"]


def test_an_argument_replaces_the_setting_of_its_name_alone(settings: Settings) -> None:
    settings.NATS_CONSUMER = {"connect_args": {"servers": "nats://one:4222", "name": "shop"}}
    options = connect_options({"name": "shell"})
    assert options.servers == ["nats://one:4222"]
    assert options.name == "shell"


def test_an_unknown_argument_of_a_client_does_not_blame_the_settings() -> None:
    with pytest.raises(ConfigurationError, match=r"^get_nats_client\(\) has no key 'servr'. Did"):
        connect_options({"servr": "a:1"})


def test_nats_pys_names_become_the_engines() -> None:
    options = connect_options(
        {"user_credentials": Path("/etc/shop.creds"), "inbox_prefix": b"_INBOX_shop"}
    )
    assert options.credentials == "/etc/shop.creds"
    assert options.inbox_prefix == "_INBOX_shop"


def test_a_tls_file_asks_for_tls() -> None:
    options = connect_options({"tls_ca": "/etc/ca.pem"})
    assert options.tls_ca == "/etc/ca.pem"
    assert options.tls_required


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"server": "x"}, r"no key 'server'.*Did you mean 'servers'"),
        ({"servers": []}, "is empty"),
        ({"servers": 4222}, "must be a URL"),
        ({"servers": ["nats://a", 4222]}, "entry 1: it is of type int"),
        ({"servers": "a,,b"}, "entry 1: it names no host"),
        ({"servers": ["nats://a", "http://b"]}, "entry 1: its scheme is not one of nats, tls"),
        ({"servers": ["a:99999"]}, "entry 0: its port is not a number from 1 to 65535"),
        ({"servers": ["a:0"]}, "entry 0: its port"),
        ({"servers": ["nats://a b"]}, "entry 0: it contains a space"),
        ({"servers": ["embedded", "nats://a"]}, "entry 0: 'embedded' cannot be one of several"),
        ({"connect_timeout": "10"}, r"connect_args\['connect_timeout'\] must be a number"),
        ({"max_reconnect_attempts": -2}, "must be a whole number"),
        ({"allow_reconnect": "yes"}, "must be True or False"),
        ({"name": 5}, "must be a string"),
        ({"tls": ssl.create_default_context()}, "Give the files instead: tls_ca"),
        ({"signature_cb": print}, "not supported: use user_credentials"),
    ],
)
def test_a_mistake_is_refused_with_what_it_should_be(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        connect_options(arguments)


KEY = "XBTWVYUTQJLOWBKHIB5MVBZOQSUXLXHLRS5SRLVIJJHWBJZIFGQPKZCU"


@pytest.mark.parametrize(
    ("arguments", "secret"),
    [
        ({"password": 73219}, "73219"),
        ({"token": 73219}, "73219"),
        ({"nkeys_seed_str": KEY}, KEY),
        ({"nkeys_seed_str": 73219}, "73219"),
        ({"nkeys_seed": KEY}, KEY),
        ({"servers": ["nats://me:hunter2@localhost:99999"]}, "hunter2"),
        ({"servers": ["nats://me:hunter2/@localhost"]}, "hunter2"),
        ({"servers": ["http://me:hunter2@localhost"]}, "hunter2"),
        ({"servers": {"nats://me:hunter2@localhost"}}, "hunter2"),
    ],
)
def test_a_secret_is_not_part_of_the_error(arguments: dict[str, Any], secret: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(connect_options(arguments))
    assert secret not in str(caught.value)
    assert secret not in repr(caught.value.__cause__)


@pytest.mark.parametrize(
    "server", ["localhost", "10.0.0.1:4222", "nats://me:p%40ss@a:1", "tls://a.b", "nats://[::1]:1"]
)
def test_a_server_is_taken_as_it_is(server: str) -> None:
    assert connect_options({"servers": [server]}).servers == [server]


def test_settings_of_nats_pys_own_machinery_change_nothing() -> None:
    assert connect_options({"verbose": True, "pending_size": 1}) == connect_options()


def test_callbacks_are_read_apart_from_the_options(settings: Settings) -> None:
    async def ours(*error: Exception) -> None: ...

    settings.NATS_CONSUMER = {"connect_args": {"error_cb": ours}}
    assert connect_options() == connect_options({"closed_cb": ours})
    assert connect_callbacks({"closed_cb": ours}) == Callbacks(error_cb=ours, closed_cb=ours)


def test_a_callback_that_is_no_coroutine_function_is_refused() -> None:
    with pytest.raises(InvalidCallback, match="closed_cb must be a coroutine function"):
        connect_callbacks({"closed_cb": print})


def test_the_embedded_server_is_started_only_to_connect(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.NATS_CONSUMER = {
        "connect_args": {"servers": "embedded"},
        "embedded_store": tmp_path / "store",
    }
    monkeypatch.setattr(embedded, "server_url", lambda store: f"nats://{store.name}:1")
    assert connect_options().servers == ["embedded"]
    assert resolve(connect_options()).servers == ["nats://store:1"]


def test_an_nkey_seed_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "user.nk"
    file.write_text("SUAM\n")
    assert resolve(connect_options({"nkeys_seed": str(file)})).nkey_seed == "SUAM"
    assert resolve(connect_options({"nkeys_seed_str": "SUAM"})).nkey_seed == "SUAM"


def test_an_nkey_file_without_a_seed_is_named(tmp_path: Path) -> None:
    file = tmp_path / "user.nk"
    file.write_text("UBJ5\n")
    with pytest.raises(ConfigurationError, match=r"user\.nk does not contain a seed") as caught:
        resolve(connect_options({"nkeys_seed": str(file)}))
    assert "UBJ5" not in str(caught.value)


def test_an_nkey_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nkeys_seed.*user\.nk"):
        resolve(connect_options({"nkeys_seed": str(tmp_path / "user.nk")}))


@pytest.mark.parametrize(
    ("servers", "spelled"),
    [
        ("localhost", "nats://localhost"),
        (["tls://me:hunter2@a:4222", "b:4222"], "tls://a:4222, nats://b:4222"),
        ("token@a:4222", "nats://a:4222"),
        ("embedded", "nats://127.0.0.1:7 (embedded)"),
    ],
)
def test_servers_are_spelled_without_their_credentials(
    settings: Settings, servers: Any, spelled: str
) -> None:
    settings.NATS_CONSUMER = {"connect_args": {"servers": servers}}
    assert display_servers("nats://127.0.0.1:7") == spelled


def test_a_token_may_be_asked_for_and_credentials_may_be_two_files() -> None:
    def token() -> str:
        return "t0ken"

    assert connect_options({"token": token}).token is token
    options = connect_options({"user_credentials": ("/etc/shop.jwt", Path("/etc/shop.nk"))})
    assert (options.credentials, options.credentials_seed) == ("/etc/shop.jwt", "/etc/shop.nk")


def test_a_domain_is_an_api_prefix() -> None:
    assert connect_options({"jetstream_domain": "hub"}).api_prefix == "$JS.hub.API"
    assert connect_options({"jetstream_api_prefix": "JS.shop"}).api_prefix == "JS.shop"


async def _no_token() -> str:
    return "t0ken"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token": _no_token}, "must be a plain callable"),
        ({"user_credentials": ("/etc/shop.jwt",)}, "the two paths of the JWT and of the seed"),
        ({"jetstream_domain": "a.b"}, "more than one name"),
        ({"jetstream_domain": "*"}, "more than one name"),
        ({"jetstream_api_prefix": "JS.>"}, "has a wildcard"),
        ({"jetstream_domain": "a", "jetstream_api_prefix": "b"}, "exclude each other"),
    ],
)
def test_a_sign_in_or_domain_that_is_none_is_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        connect_options(arguments)


@pytest.mark.parametrize("around", ["{}", "{}\r\n", "-----BEGIN SEED-----\n{}\n-----END-----\n"])
def test_a_seed_may_have_line_ends_and_decorations_around_it(tmp_path: Path, around: str) -> None:
    seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
    file = tmp_path / "shop.nk"
    file.write_text(around.format(seed))
    assert resolve(connect_options({"nkeys_seed": str(file)})).nkey_seed == seed
    assert resolve(connect_options({"nkeys_seed_str": f"{seed}\n"})).nkey_seed == seed


def test_an_error_of_another_connection_names_its_place(settings: Settings, tmp_path: Path) -> None:
    place = re.escape('NATS_CONSUMER["connections"]["analytics"]')
    for arguments, message in (
        ({"servr": "a:1"}, f"{place} has no key 'servr'"),
        ({"user": "me"}, f"{place}: user and password go together"),
        ({"ping_interval": 0}, rf"{place}\['ping_interval'\] must be a number"),
        ({"signature_cb": print}, rf"{place}\['signature_cb'\] is not supported"),
        ({"nkeys_seed": str(tmp_path / "user.nk")}, rf'{place}\["nkeys_seed"\] is the path'),
    ):
        settings.NATS_CONSUMER = {"connections": {"analytics": arguments}}
        with pytest.raises(ConfigurationError, match=message):
            resolve(connect_options(using="analytics"))
        assert connect_options().servers == ["nats://127.0.0.1:4222"]


def test_servers_of_another_connection_are_spelled_without_their_credentials(
    settings: Settings,
) -> None:
    settings.NATS_CONSUMER = {"connections": {"analytics": {"servers": "hunter2@a:4222"}}}
    assert display_servers(None, "analytics") == "nats://a:4222"
    assert "hunter2" not in repr(connect_options(using="analytics"))
