"""The setting NATS_CONSUMER of a project."""

import sys
from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address
from os import PathLike
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from .exceptions import ConfigurationError
from .names import check_name
from .validation import number, unknown_key, whole

KEYS = (
    "connect_args",
    "connections",
    "default_durable_name",
    "manage_durables",
    "announce",
    "event_loop_policy",
    "max_threads",
    "shutdown_timeout",
    "http",
    "ready_grace",
    "workers",
    "max_messages",
    "max_messages_jitter",
    "max_rss",
    "worker_start_timeout",
    "hung_after",
    "middleware",
    "publish_middleware",
    "trace_parent",
    "embedded_store",
    "exclude_apps",
    "migrate_streams_in_tests",
    "publish_in_tests",
    "outbox_relay",
    "inbox_retention",
    "admin_payload",
)
# The connection of connect_args.
DEFAULT_CONNECTION = "default"
_OLD_DURABLE_KEY = "DEFAULT_DURABLE_NAME"
# Three such processes stay below the 100 connections of PostgreSQL's default.
_DEFAULT_MAX_THREADS = 32
_DEFAULT_SHUTDOWN_TIMEOUT = 25.0
_DEFAULT_READY_GRACE = 10.0
_DEFAULT_START_TIMEOUT = 60.0
_DEFAULT_HUNG_AFTER = 60.0
# The engine of a worker says something each second.
_SHORTEST_HUNG_AFTER = 5.0
_DEFAULT_INBOX_RETENTION = 7 * 24 * 3600.0
_TRACE_PARENTS = ("first", "every", "never")
_LOOPBACK = "127.0.0.1"
_LAST_PORT = 65_535


def nats_consumer_settings() -> Mapping[str, Any]:
    """The setting NATS_CONSUMER, empty if the project has none. Raises ConfigurationError if it is
    not a dict."""
    value = getattr(settings, "NATS_CONSUMER", {})
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"NATS_CONSUMER must be a dict, not {type(value).__name__}.")
    return value


def check_keys(arguments: Collection[str]) -> None:
    """Raises ConfigurationError for the keys of NATS_CONSUMER that do not exist. Those called
    `arguments` belong in connect_args."""
    faults = [
        f'NATS_CONSUMER has no key {key!r}: it belongs in NATS_CONSUMER["connect_args"].'
        if key in arguments
        else str(unknown_key(key, KEYS, "NATS_CONSUMER"))
        for key in nats_consumer_settings()
        if key not in (*KEYS, _OLD_DURABLE_KEY)
    ]
    if faults:
        raise ConfigurationError(" ".join(faults))


def connect_args(using: str = DEFAULT_CONNECTION) -> dict[str, Any]:
    """The arguments of the connection `using`; those of "default" are
    NATS_CONSUMER["connect_args"], empty if absent. Raises ConfigurationError for an unknown
    connection."""
    if using == DEFAULT_CONNECTION:
        value = nats_consumer_settings().get("connect_args", {})
    else:
        value = _connections()[check_connection(using)]
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{place_of(using)} must be a dict.")
    return dict(value)


def connections() -> tuple[str, ...]:
    """The aliases of all connections, "default" first. Raises ConfigurationError if
    NATS_CONSUMER["connections"] is wrong."""
    return (DEFAULT_CONNECTION, *_connections())


def check_connection(using: object) -> str:
    """The alias, if there is such a connection. Raises ConfigurationError, which names those that
    exist."""
    known = connections()
    if isinstance(using, str) and using in known:
        return using
    raise ConfigurationError(
        f'There is no connection {using!r}. Add it to NATS_CONSUMER["connections"], or use one '
        f"of these: {', '.join(known)}."
    )


def place_of(using: str) -> str:
    """Return the expression for the arguments of a connection in the settings."""
    key = "connect_args" if using == DEFAULT_CONNECTION else f'connections"]["{using}'
    return f'NATS_CONSUMER["{key}"]'


def _connections() -> Mapping[str, Any]:
    value = nats_consumer_settings().get("connections", {})
    if not isinstance(value, Mapping):
        raise ConfigurationError('NATS_CONSUMER["connections"] must be a dict.')
    if DEFAULT_CONNECTION in value:
        raise ConfigurationError(
            f'NATS_CONSUMER["connections"] cannot have the key {DEFAULT_CONNECTION!r}: that is the '
            'connection of NATS_CONSUMER["connect_args"].'
        )
    for alias in value:
        try:
            check_name(alias, 'A key of NATS_CONSUMER["connections"]')
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
    return value


def default_durable_name() -> str | None:
    """The durable of every consumer that does not name its own. The upper-case key is the one that
    older versions read."""
    values = nats_consumer_settings()
    name: str | None = values.get("default_durable_name") or values.get(_OLD_DURABLE_KEY)
    return name


def manage_durables() -> bool:
    """Whether workers create durables and change them to fit their declarations."""
    return _flag("manage_durables", default=True)


def announce() -> bool:
    """Whether workers answer `nats_status` and `nats micro`."""
    return _flag("announce", default=True)


def event_loop_policy() -> str | None:
    """The dotted path of the event loop policy to run consumers on."""
    path = nats_consumer_settings().get("event_loop_policy")
    if path is None or isinstance(path, str):
        return path or None
    raise ConfigurationError(
        'NATS_CONSUMER["event_loop_policy"] must be a dotted path such as '
        f"'uvloop.EventLoopPolicy', not {path!r}."
    )


def max_threads() -> int:
    """The number of threads that a process has at most for `def` handlers, and again for the
    blocking code of `async def` handlers."""
    value = nats_consumer_settings().get("max_threads", _DEFAULT_MAX_THREADS)
    return whole(value, 'NATS_CONSUMER["max_threads"]', least=1)


def excluded_apps() -> list[str]:
    """The labels or names of apps whose `consumers` module is not imported."""
    apps = nats_consumer_settings().get("exclude_apps", [])
    if isinstance(apps, list | tuple) and all(isinstance(each, str) for each in apps):
        return list(apps)
    raise ConfigurationError(
        f'NATS_CONSUMER["exclude_apps"] must be a list of app labels, not {apps!r}.'
    )


def middleware() -> list[str]:
    """The dotted paths of the middleware around each attempt, outermost first."""
    return _paths("middleware")


def publish_middleware() -> list[str]:
    """The dotted paths of the middleware around each publishing, outermost first."""
    return _paths("publish_middleware")


def trace_parent() -> str:
    """Which attempts have the publisher's span as their parent: "first", "every" or "never"."""
    value = nats_consumer_settings().get("trace_parent", "first")
    if value in _TRACE_PARENTS:
        return str(value)
    raise ConfigurationError(
        f'NATS_CONSUMER["trace_parent"] must be "first", "every" or "never", not {value!r}.'
    )


def _flag(key: str, *, default: bool) -> bool:
    value = nats_consumer_settings().get(key, default)
    if isinstance(value, bool):
        return value
    raise ConfigurationError(f'NATS_CONSUMER["{key}"] must be True or False, not {value!r}.')


def _paths(key: str) -> list[str]:
    paths = nats_consumer_settings().get(key, [])
    if isinstance(paths, list | tuple) and all(isinstance(each, str) for each in paths):
        return list(paths)
    raise ConfigurationError(
        f'NATS_CONSUMER["{key}"] must be a list of dotted paths such as '
        f"['shop.middleware.tenant'], not {paths!r}."
    )


def is_test_run() -> bool:
    """Whether Django's setup_test_environment() was called, as by its test runner and by
    pytest-django. It replaces the backend for e-mail at the same time."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def migrates_streams_in_tests() -> bool:
    """Whether operations in migrations run for a test database too."""
    return _flag("migrate_streams_in_tests", default=False)


def publishes_in_tests() -> bool:
    """Whether test runs publish. Otherwise messages are kept in nats_consumer.testing.outbox."""
    return _flag("publish_in_tests", default=True)


def outbox_relay() -> bool:
    """Whether workers publish the rows of the outbox too."""
    return _flag("outbox_relay", default=True)


def inbox_retention() -> float:
    """How long, in seconds, the inbox remembers a message at least."""
    value = nats_consumer_settings().get("inbox_retention", _DEFAULT_INBOX_RETENTION)
    return number(value, 'NATS_CONSUMER["inbox_retention"]')


def imported(setting: str, path: str) -> Callable[..., Any]:
    """Return the callable at a dotted path of a setting. Raises ConfigurationError."""
    try:
        found = import_string(path)
    except Exception as error:
        raise ConfigurationError(
            f'NATS_CONSUMER["{setting}"]: {path} cannot be imported: {error}'
        ) from error
    if not callable(found):
        raise ConfigurationError(f'NATS_CONSUMER["{setting}"]: {path} is not callable.')
    checked: Callable[..., Any] = found
    return checked


def admin_payload() -> Callable[..., bytes | str | None] | None:
    """The function that the admin shows payloads through, or None."""
    path = nats_consumer_settings().get("admin_payload")
    if path is None:
        return None
    if isinstance(path, str):
        return imported("admin_payload", path)
    raise ConfigurationError(
        'NATS_CONSUMER["admin_payload"] must be the dotted path of a function such as '
        f"'shop.masks.payload', not {path!r}."
    )


def http(given: object = None) -> str | None:
    """Return the address of probes and metrics, as "host:port": the `given` one, or that of the
    setting. A port alone is one of loopback. None serves none."""
    value = nats_consumer_settings().get("http") if given is None else given
    if value is None:
        return None
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    is_port = port.isascii() and port.isdigit() and int(port) <= _LAST_PORT
    if not colon or not is_port or not _is_host(host):
        what = 'NATS_CONSUMER["http"]' if given is None else "--http"
        raise ConfigurationError(
            f"{what} must be host and port, such as '127.0.0.1:9464', not {value!r}."
        )
    return f"{host or _LOOPBACK}:{port}"


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the host of "host:port"."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_host(host: str) -> bool:
    """Whether it is empty, a name, or an address; one of IPv6 has brackets."""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return False
    return not any(char.isspace() or char in "/@[]" for char in host)


def shutdown_timeout(given: object = None) -> float:
    """How long, in seconds, running handlers may go on after SIGTERM: as `given`, or as the
    setting says."""
    if given is not None:
        return number(given, "the shutdown timeout")
    return _seconds("shutdown_timeout", _DEFAULT_SHUTDOWN_TIMEOUT)


def ready_grace() -> float:
    """How long, in seconds, a consumer that was ready counts as ready while it reconnects."""
    return _seconds("ready_grace", _DEFAULT_READY_GRACE)


def worker_start_timeout() -> float:
    """How long, in seconds, a worker that is to replace another one may take until it is ready."""
    return _seconds("worker_start_timeout", _DEFAULT_START_TIMEOUT)


def hung_after() -> float:
    """How long, in seconds, the engine of a worker may say nothing until the worker is killed."""
    return _seconds("hung_after", _DEFAULT_HUNG_AFTER, least=_SHORTEST_HUNG_AFTER)


def workers(given: object = None) -> int | None:
    """How many worker processes to run under a supervisor: as `given`, or as the setting says. None
    is this process alone."""
    return _optional_whole("workers", given)


def max_messages(given: object = None) -> int | None:
    """The number of messages after which a worker is replaced: as `given`, or as the setting says.
    None means no limit."""
    return _optional_whole("max_messages", given)


def max_messages_jitter(given: object = None) -> int | None:
    """The most messages that max_messages is raised by at random: as `given`, or as the setting
    says. None is a tenth of it."""
    return _optional_whole("max_messages_jitter", given, least=0)


def max_rss(given: object = None) -> int | None:
    """The resident memory, in MiB, above which a worker is replaced: as `given`, or as the setting
    says. None means no limit."""
    return _optional_whole("max_rss", given)


def _seconds(key: str, default: float, least: float = 0) -> float:
    value = nats_consumer_settings().get(key, default)
    return number(value, f'NATS_CONSUMER["{key}"]', least=least)


def _optional_whole(key: str, given: object, *, least: int = 1) -> int | None:
    if given is not None:
        return whole(given, f"--{key.replace('_', '-')}", least=least)
    value = nats_consumer_settings().get(key)
    return None if value is None else whole(value, f'NATS_CONSUMER["{key}"]', least=least)


def embedded_store(using: str = DEFAULT_CONNECTION) -> Path:
    """The folder where the embedded server of a connection keeps its streams. The alias ends its
    name, except for "default"."""
    store = _embedded_store()
    return store if using == DEFAULT_CONNECTION else store.parent / f"{store.name}-{using}"


def _embedded_store() -> Path:
    given = nats_consumer_settings().get("embedded_store")
    if given is None:
        return Path(getattr(settings, "BASE_DIR", None) or Path.cwd()) / ".nats"
    if isinstance(given, str | PathLike) and str(given):
        return Path(given)
    raise ConfigurationError(
        f'NATS_CONSUMER["embedded_store"] must be the path of a folder, not {given!r}.'
    )
