"""What the project's settings say, and the two structs that the engine reads."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any, TypeGuard

from django.conf import settings

from .exceptions import ConfigurationError

KEYS = (
    "connect_args",
    "default_durable_name",
    "event_loop_policy",
    "shutdown_timeout",
    "embedded_store",
)
_OLD_DURABLE_KEY = "DEFAULT_DURABLE_NAME"
_DEFAULT_SHUTDOWN_TIMEOUT = 25.0
# Comparing a key with those that exist takes time with the square of its length.
_LONGEST_KEY = 100
# The engine counts in 64 bits with a sign.
_MOST = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class ConnectOptions:
    """How to reach the server. Times are seconds; `max_reconnect_attempts` -1 means for ever."""

    servers: list[str]
    name: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials: str | None = None
    nkey_seed: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_required: bool | None = None
    inbox_prefix: str | None = None
    allow_reconnect: bool = True
    max_reconnect_attempts: int = -1
    reconnect_time_wait: float = 2.0
    connect_timeout: float = 2.0
    ping_interval: float = 10.0
    no_echo: bool = False


@dataclass(frozen=True, kw_only=True)
class ConsumerOptions:
    """One consumer as the engine runs it. Times are seconds. `retry_delays`, where given, replace
    the computed delays, and the last one repeats."""

    name: str
    stream: str
    durable: str
    durable_is_derived: bool
    kind: str
    filter_subjects: list[str]
    concurrency: int
    batch_size: int
    fetch_timeout: float
    ack_wait: float
    max_ack_pending: int | None
    deliver_policy: str
    start_sequence: int | None
    start_time: str | None
    max_attempts: int
    initial_retry_delay: float
    max_retry_delay: float
    backoff_factor: float
    retry_delays: list[float]
    exhausted: str
    handler_timeout: float | None


def nats_consumer_settings() -> Mapping[str, Any]:
    """The setting NATS_CONSUMER, empty if the project has none. Raises ConfigurationError if it is
    not a dict."""
    value = getattr(settings, "NATS_CONSUMER", {})
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"NATS_CONSUMER must be a dict, not {type(value).__name__}.")
    return value


def unknown_key(
    key: str, known: tuple[str, ...], where: str, what: str = "key"
) -> ConfigurationError:
    """The error for a key that does not exist, with the ones that look like it. `what` it is
    called `where` it was given."""
    close = get_close_matches(str(key)[:_LONGEST_KEY], known, n=3)
    hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"It knows: {known}."
    return ConfigurationError(f"{where} has no {what} {key!r}. {hint}")


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


def connect_args() -> dict[str, Any]:
    """NATS_CONSUMER["connect_args"], empty if absent."""
    value = nats_consumer_settings().get("connect_args", {})
    if not isinstance(value, Mapping):
        raise ConfigurationError('NATS_CONSUMER["connect_args"] must be a dict.')
    return dict(value)


def default_durable_name() -> str | None:
    """The durable of every consumer that does not name its own. The upper-case key is the one that
    older versions read."""
    values = nats_consumer_settings()
    name: str | None = values.get("default_durable_name") or values.get(_OLD_DURABLE_KEY)
    return name


def event_loop_policy() -> str | None:
    """The dotted path of the event loop policy to run consumers on."""
    path = nats_consumer_settings().get("event_loop_policy")
    if path is None or isinstance(path, str):
        return path or None
    raise ConfigurationError(
        'NATS_CONSUMER["event_loop_policy"] must be a dotted path such as '
        f"'uvloop.EventLoopPolicy', not {path!r}."
    )


def shutdown_timeout(given: object = None) -> float:
    """How long, in seconds, running handlers may go on after SIGTERM: as `given`, or as the
    setting says."""
    if given is not None:
        return number(given, "the shutdown timeout")
    return number(
        nats_consumer_settings().get("shutdown_timeout", _DEFAULT_SHUTDOWN_TIMEOUT),
        'NATS_CONSUMER["shutdown_timeout"]',
    )


def embedded_store() -> Path:
    """The folder where the embedded server keeps its streams."""
    given = nats_consumer_settings().get("embedded_store")
    if given is None:
        return Path(getattr(settings, "BASE_DIR", None) or Path.cwd()) / ".nats"
    if isinstance(given, str | PathLike) and str(given):
        return Path(given)
    raise ConfigurationError(
        f'NATS_CONSUMER["embedded_store"] must be the path of a folder, not {given!r}.'
    )


def number(value: object, what: str, *, least: float = 0) -> float:
    """`value` as a float. Raises ConfigurationError naming `what` if it is not a finite number or
    is smaller than `least`."""
    if not _is_number(value) or not _is_finite(value) or value < least:
        raise ConfigurationError(f"{what} must be a number of at least {least:g}, not {value!r}.")
    return float(value)


def whole(value: object, what: str, *, least: int = 0) -> int:
    """`value` as an int. Raises ConfigurationError naming `what` if it is not a whole number or is
    smaller than `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        raise ConfigurationError(f"{what} must be a whole number, at least {least}, not {value!r}.")
    return value


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # an int that no float can be
        return False


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
