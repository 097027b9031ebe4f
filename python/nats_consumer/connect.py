"""connect_args, with the names of nats-py, become the ConnectOptions of the engine."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import settings
from .exceptions import ConfigurationError
from .settings import ConnectOptions, number, unknown_key, whole

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
_DEFAULT_SERVER = "nats://127.0.0.1:4222"

# Settings of nats-py's own machinery: the engine has its own and needs no tuning here.
_IGNORED = (
    "dont_randomize",
    "drain_timeout",
    "flush_timeout",
    "flusher_queue_size",
    "max_outstanding_pings",
    "pedantic",
    "pending_size",
    "skip_subject_validation",
    "verbose",
)
_CALLBACKS = (
    "closed_cb",
    "disconnected_cb",
    "discovered_server_cb",
    "error_cb",
    "lame_duck_mode_cb",
    "reconnected_cb",
)
_UNSUPPORTED = {
    "signature_cb": "use user_credentials or nkeys_seed",
    "user_jwt_cb": "use user_credentials",
    "reconnect_to_server_handler": "list the servers in `servers`",
    "tls_handshake_first": "use a server that accepts the ordinary TLS upgrade",
    "tls_hostname": "use the certificate's host name in `servers`",
    "ws_connection_headers": "use a nats:// or tls:// server",
}


def connect_options(overrides: Mapping[str, Any] | None = None) -> ConnectOptions:
    """The options of the setting `connect_args`, each key replaceable by `overrides`. Reads no
    file and contacts nobody. Raises ConfigurationError."""
    arguments = {**settings.connect_args(), **(overrides or {})}
    fields: dict[str, Any] = {"servers": [_DEFAULT_SERVER]}
    for key, value in arguments.items():
        if key in _IGNORED:
            continue
        if key in _CALLBACKS:
            logger.warning("connect_args[%r] is never called; see the nats_consumer logs.", key)
            continue
        fields.update(_translate(key, value))
    return ConnectOptions(**fields)


def resolve(options: ConnectOptions) -> ConnectOptions:
    """The options with what has to be looked up: starts or joins the embedded server, reads the
    nkey seed. Blocking. Raises ConfigurationError if a file cannot be read."""
    if options.servers == [EMBEDDED]:
        from .embedded import server_url

        options = replace(options, servers=[server_url(settings.embedded_store())])
    if options.nkey_seed and not options.nkey_seed.startswith("SU"):
        options = replace(options, nkey_seed=_read_seed(options.nkey_seed))
    return options


def _read_seed(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f'connect_args["nkeys_seed"] is the path of a file with the seed: {error}.'
        ) from error


def _translate(key: str, value: Any) -> dict[str, Any]:
    if key in _UNSUPPORTED:
        raise ConfigurationError(f"connect_args[{key!r}] is not supported: {_UNSUPPORTED[key]}.")
    if key not in _TRANSLATIONS:
        raise unknown_key(key, tuple(_TRANSLATIONS), 'NATS_CONSUMER["connect_args"]')
    if value is None:
        return {}
    return _TRANSLATIONS[key](f"connect_args[{key!r}]", value)


_Translation = Callable[[str, Any], dict[str, Any]]


def _servers(what: str, value: Any) -> dict[str, Any]:
    servers = value.split(",") if isinstance(value, str) else value
    if (
        not isinstance(servers, (list, tuple))
        or not servers
        or not all(isinstance(server, str) and server.strip() for server in servers)
    ):
        raise ConfigurationError(
            f"{what} must be a URL such as 'nats://localhost:4222', a list of them, "
            f"or {EMBEDDED!r}, not {value!r}."
        )
    return {"servers": [server.strip() for server in servers]}


def _tls(what: str, value: Any) -> dict[str, Any]:
    if value is True or value is False:
        return {"tls_required": value}
    raise ConfigurationError(
        f"{what} must be True or False, not {type(value).__name__}: an SSLContext cannot be read "
        "back. Give the files instead: tls_ca, tls_cert, tls_key."
    )


def _text(field: str) -> _Translation:
    def translate(what: str, value: Any) -> dict[str, Any]:
        text = value.decode() if isinstance(value, bytes) else value
        if not isinstance(text, (str, Path)):
            raise ConfigurationError(f"{what} must be a string, not {value!r}.")
        return {field: str(text)}

    return translate


def _tls_file(field: str) -> _Translation:
    text = _text(field)
    return lambda what, value: {**text(what, value), "tls_required": True}


def _flag(field: str) -> _Translation:
    def translate(what: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, bool):
            raise ConfigurationError(f"{what} must be True or False, not {value!r}.")
        return {field: value}

    return translate


def _seconds(field: str) -> _Translation:
    return lambda what, value: {field: number(value, what)}


_TRANSLATIONS: dict[str, _Translation] = {
    "servers": _servers,
    "name": _text("name"),
    "user": _text("user"),
    "password": _text("password"),
    "token": _text("token"),
    "user_credentials": _text("credentials"),
    "nkeys_seed": _text("nkey_seed"),
    "nkeys_seed_str": _text("nkey_seed"),
    "tls": _tls,
    "tls_ca": _tls_file("tls_ca"),
    "tls_cert": _tls_file("tls_cert"),
    "tls_key": _tls_file("tls_key"),
    "inbox_prefix": _text("inbox_prefix"),
    "allow_reconnect": _flag("allow_reconnect"),
    "max_reconnect_attempts": lambda what, value: {
        "max_reconnect_attempts": whole(value, what, least=-1)
    },
    "reconnect_time_wait": _seconds("reconnect_time_wait"),
    "connect_timeout": _seconds("connect_timeout"),
    "ping_interval": _seconds("ping_interval"),
    "no_echo": _flag("no_echo"),
}
