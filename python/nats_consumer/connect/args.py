"""The setting `connect_args`, with the names of nats-py, read into ConnectOptions."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nats_consumer import settings
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.names import is_wildcard, subject_problem
from nats_consumer.settings import DEFAULT_CONNECTION
from nats_consumer.validation import number, unknown_key, whole

from .callbacks import Callbacks
from .options import EMBEDDED, SEED, ConnectOptions
from .secret import Secret, conceal

_SCHEMES = ("nats", "tls")
_LOOKS_LIKE_A_KEY = re.compile(r"[A-Z2-7]{50,}")
# The engine's timers need a period.
_SHORTEST_SECONDS = 0.1
_DEFAULT_SERVER = "nats://127.0.0.1:4222"

_CALL = "get_nats_client()"

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
_CALLBACKS = tuple(each.name for each in fields(Callbacks))
_UNSUPPORTED = {
    "signature_cb": "use user_credentials or nkeys_seed",
    "user_jwt_cb": "use user_credentials",
    "reconnect_to_server_handler": "list the servers in `servers`",
    "tls_handshake_first": "use a server that accepts the ordinary TLS upgrade",
    "tls_hostname": "use the certificate's host name in `servers`",
    "ws_connection_headers": "use a nats:// or tls:// server",
}


def connect_options(
    overrides: Mapping[str, Any] | None = None, using: str = DEFAULT_CONNECTION
) -> ConnectOptions:
    """The options of the connection `using`, which for "default" are those of the setting
    `connect_args`, each key replaceable by `overrides`. Reads no file and contacts nobody. Raises
    ConfigurationError, which names all that is wrong."""
    given = overrides or {}
    arguments = conceal({**settings.connect_args(using), **given})
    options: dict[str, Any] = {"servers": [_DEFAULT_SERVER], "using": using}
    where = named(using)
    faults: list[str] = []
    for key, value in arguments.items():
        if key in _IGNORED or key in _CALLBACKS:
            continue
        try:
            owner = _CALL if key in given else settings.place_of(using)
            options.update(_translate(key, value, owner, where))
        except ConfigurationError as error:
            faults.append(str(error))
    if ("user" in options) != ("password" in options):
        faults.append(f"{where}: user and password go together: set both.")
    if arguments.get("jetstream_domain") and arguments.get("jetstream_api_prefix"):
        faults.append(
            f"{where}: jetstream_domain and jetstream_api_prefix exclude each other. Keep one."
        )
    if faults:
        raise ConfigurationError(" ".join(faults))
    return ConnectOptions(**options)


def named(using: str) -> str:
    """The name of a connection's arguments in errors."""
    return "connect_args" if using == DEFAULT_CONNECTION else settings.place_of(using)


def patience(using: str) -> float:
    """How long, in seconds, the servers of a connection are waited for."""
    options = connect_options(using=using)
    return options.connect_timeout * len(options.servers)


def check_sign_in(using: str = DEFAULT_CONNECTION) -> None:
    """Raises ConfigurationError if a connection's arguments say in several ways who we are."""
    arguments = settings.connect_args(using)
    # A token beside a user is allowed: nats-py accepts both.
    if arguments.get("nkeys_seed") is not None and arguments.get("nkeys_seed_str") is not None:
        raise ConfigurationError(
            f"{settings.place_of(using)} has both nkeys_seed and nkeys_seed_str. Keep one of them."
        )


def connect_callbacks(
    overrides: Mapping[str, Any] | None = None, using: str = DEFAULT_CONNECTION
) -> Callbacks:
    """The callbacks of a connection's arguments, each replaceable by `overrides`. They are for
    clients: a consumer's connection is looked after by the worker, which logs. Raises
    InvalidCallback."""
    arguments = conceal({**settings.connect_args(using), **(overrides or {})})
    return Callbacks(**{key: arguments[key] for key in _CALLBACKS if key in arguments})


def _translate(key: str, value: Any, owner: str, where: str) -> dict[str, Any]:
    if key in _UNSUPPORTED:
        raise ConfigurationError(f"{where}[{key!r}] is not supported: {_UNSUPPORTED[key]}.")
    if key not in _TRANSLATIONS:
        raise unknown_key(key, KEYS, owner)
    if value is None:
        return {}
    return _TRANSLATIONS[key](f"{where}[{key!r}]", value)


_Translation = Callable[[str, Any], dict[str, Any]]


def _servers(what: str, servers: Any) -> dict[str, Any]:
    if servers in ([], ()):
        raise ConfigurationError(
            f"{what} is empty. Name a server, such as 'nats://localhost:4222'."
        )
    if not isinstance(servers, list | tuple):
        raise ConfigurationError(
            f"{what} must be a URL such as 'nats://localhost:4222', a list of them, "
            f"or {EMBEDDED!r}, not {type(servers).__name__}."
        )
    if len(servers) == 1 and servers[0] == EMBEDDED:
        return {"servers": [EMBEDDED]}
    for index, server in enumerate(servers):
        if problem := _server_problem(server):
            # Its number instead of the URL, in which there may be a password.
            raise ConfigurationError(
                f"{what}, entry {index}: {problem}. It must be a URL such as "
                "'nats://localhost:4222'."
            )
    return {"servers": [server.strip() for server in servers]}


def _server_problem(server: object) -> str | None:
    """The reason why this is not a server, without its URL."""
    if not isinstance(server, str):
        return f"it is of type {type(server).__name__}"
    text = server.strip()
    if text == EMBEDDED:
        return f"{EMBEDDED!r} cannot be one of several"
    try:
        url = urlsplit(text if "://" in text else f"nats://{text}")
        port_is_fine = url.port is None or url.port > 0
    except ValueError:
        port_is_fine = False
    if not port_is_fine:
        return (
            "its port is not a number from 1 to 65535 (in a password, write '/', '?', '#' and '@' "
            "as %2F, %3F, %23 and %40)"
        )
    if url.scheme not in _SCHEMES:
        return f"its scheme is not one of {', '.join(_SCHEMES)}"
    if not url.hostname:
        return "it names no host"
    return "it contains a space" if any(char.isspace() for char in text) else None


def _tls(what: str, value: Any) -> dict[str, Any]:
    if value is True or value is False:
        return {"tls_required": value}
    raise ConfigurationError(
        f"{what} must be True or False, not {type(value).__name__}: an SSLContext cannot be read "
        "back. Give the files instead: tls_ca, tls_cert, tls_key."
    )


def _text(field: str) -> _Translation:
    def translate(what: str, value: Any) -> dict[str, Any]:
        text = _decoded(what, value)
        if not isinstance(text, (str, Path)):
            raise ConfigurationError(f"{what} must be a string, not {type(value).__name__}.")
        return {field: str(text)}

    return translate


def _secret(field: str) -> _Translation:
    """Read a text like _text(), with an error that does not show the value."""

    def translate(what: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, str | bytes):
            raise ConfigurationError(f"{what} must be a string, not {type(value).__name__}.")
        return {field: Secret(_decoded(what, value))}

    return translate


def _decoded(what: str, value: Any) -> Any:
    """Bytes as text, anything else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        # Without the cause, which repeats the bytes.
        raise ConfigurationError(f"{what} is given as bytes that are not UTF-8.") from None


def _token(what: str, value: Any) -> dict[str, Any]:
    """The token, or a callable that gives it for each connection."""
    if iscoroutinefunction(value):
        raise ConfigurationError(f"{what} must be a plain callable, not an `async def`.")
    return {"token": value} if callable(value) else _secret("token")(what, value)


def _credentials(what: str, value: Any) -> dict[str, Any]:
    """One file with both parts, or a file for the JWT and one for the seed."""
    if not isinstance(value, tuple | list):
        return _text("credentials")(what, value)
    if len(value) != 2:
        raise ConfigurationError(
            f"{what} must be the path of a file, or the two paths of the JWT and of the seed."
        )
    token, seed = value
    return {**_text("credentials")(what, token), **_text("credentials_seed")(what, seed)}


def _domain(what: str, value: Any) -> dict[str, Any]:
    domain = _text("domain")(what, value)["domain"]
    problem = subject_problem(domain) or (
        ("." in domain or is_wildcard(domain)) and f"{domain!r} is more than one name"
    )
    if problem:
        raise ConfigurationError(f"{what} must be the name of a JetStream domain: {problem}.")
    return {"api_prefix": f"$JS.{domain}.API"}


def _seed(what: str, value: Any) -> dict[str, Any]:
    text = _secret("nkey_seed")(what, value)["nkey_seed"]
    fields = {"nkey_seed": Secret(text.strip())}
    if not fields["nkey_seed"].startswith(SEED):
        raise ConfigurationError(
            f"{what} must be the seed itself, which begins with {SEED}. Pass the path of a file "
            "that holds it as nkeys_seed."
        )
    return fields


def _seed_file(what: str, value: Any) -> dict[str, Any]:
    path = Secret(_text("nkey_seed")(what, value)["nkey_seed"])
    if not path.startswith(SEED) and _LOOKS_LIKE_A_KEY.fullmatch(path):
        raise ConfigurationError(
            f"{what} must be the path of a file that holds the seed. What is given looks like a "
            f"key, and not like the seed of a user, which begins with {SEED}."
        )
    return {"nkey_seed": path}


def _subject_prefix(field: str, example: str) -> _Translation:
    text = _text(field)

    def translate(what: str, value: Any) -> dict[str, Any]:
        fields = text(what, value)
        prefix = fields[field]
        problem = subject_problem(prefix) or (is_wildcard(prefix) and f"{prefix!r} has a wildcard")
        if problem:
            raise ConfigurationError(
                f"{what} must be the beginning of a subject, such as {example!r}: {problem}."
            )
        return fields

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


def _seconds(field: str, *, least: float = 0) -> _Translation:
    return lambda what, value: {field: number(value, what, least=least)}


_TRANSLATIONS: dict[str, _Translation] = {
    "servers": _servers,
    "name": _text("name"),
    "user": _text("user"),
    "password": _secret("password"),
    "token": _token,
    "user_credentials": _credentials,
    "nkeys_seed": _seed_file,
    "nkeys_seed_str": _seed,
    "tls": _tls,
    "tls_ca": _tls_file("tls_ca"),
    "tls_cert": _tls_file("tls_cert"),
    "tls_key": _tls_file("tls_key"),
    "jetstream_domain": _domain,
    "jetstream_api_prefix": _subject_prefix("api_prefix", "JS.shop"),
    "inbox_prefix": _subject_prefix("inbox_prefix", "_INBOX_shop"),
    "allow_reconnect": _flag("allow_reconnect"),
    "max_reconnect_attempts": lambda what, value: {
        "max_reconnect_attempts": whole(value, what, least=-1)
    },
    "reconnect_time_wait": _seconds("reconnect_time_wait"),
    "connect_timeout": _seconds("connect_timeout", least=_SHORTEST_SECONDS),
    "ping_interval": _seconds("ping_interval", least=_SHORTEST_SECONDS),
    "no_echo": _flag("no_echo"),
}

KEYS = tuple(_TRANSLATIONS)
"""Keys of connect_args beside callbacks and ignored ones."""
