"""The setting NATS_CONSUMER of a project."""

from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from django.conf import settings

from .exceptions import ConfigurationError
from .validation import number, unknown_key

KEYS = (
    "connect_args",
    "default_durable_name",
    "manage_durables",
    "event_loop_policy",
    "shutdown_timeout",
    "embedded_store",
    "exclude_apps",
    "migrate_streams_in_tests",
    "outbox_relay",
)
_OLD_DURABLE_KEY = "DEFAULT_DURABLE_NAME"
_DEFAULT_SHUTDOWN_TIMEOUT = 25.0


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


def manage_durables() -> bool:
    """Whether workers create durables and change them to fit their declarations."""
    value = nats_consumer_settings().get("manage_durables", True)
    if isinstance(value, bool):
        return value
    raise ConfigurationError(
        f'NATS_CONSUMER["manage_durables"] must be True or False, not {value!r}.'
    )


def event_loop_policy() -> str | None:
    """The dotted path of the event loop policy to run consumers on."""
    path = nats_consumer_settings().get("event_loop_policy")
    if path is None or isinstance(path, str):
        return path or None
    raise ConfigurationError(
        'NATS_CONSUMER["event_loop_policy"] must be a dotted path such as '
        f"'uvloop.EventLoopPolicy', not {path!r}."
    )


def excluded_apps() -> list[str]:
    """The labels or names of apps whose `consumers` module is not imported."""
    apps = nats_consumer_settings().get("exclude_apps", [])
    if isinstance(apps, list | tuple) and all(isinstance(each, str) for each in apps):
        return list(apps)
    raise ConfigurationError(
        f'NATS_CONSUMER["exclude_apps"] must be a list of app labels, not {apps!r}.'
    )


def migrates_streams_in_tests() -> bool:
    """Whether operations in migrations run for a test database too."""
    value = nats_consumer_settings().get("migrate_streams_in_tests", False)
    if isinstance(value, bool):
        return value
    raise ConfigurationError(
        f'NATS_CONSUMER["migrate_streams_in_tests"] must be True or False, not {value!r}.'
    )


def outbox_relay() -> bool:
    """Whether workers publish the rows of the outbox too."""
    value = nats_consumer_settings().get("outbox_relay", True)
    if isinstance(value, bool):
        return value
    raise ConfigurationError(f'NATS_CONSUMER["outbox_relay"] must be True or False, not {value!r}.')


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
