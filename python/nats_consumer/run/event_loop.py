"""The event loop that consumers run on."""

import asyncio
import logging
from collections.abc import Callable
from difflib import get_close_matches
from importlib.util import find_spec

from django.utils.module_loading import import_string

from nats_consumer import settings
from nats_consumer.exceptions import ConfigurationError

logger = logging.getLogger("nats_consumer.worker")

Factory = Callable[[], asyncio.AbstractEventLoop]

_UVLOOP = "uvloop.EventLoopPolicy"
# "uvlop" and "uv_loop" are meant to be uvloop; "rloop" and "winloop" are others.
_ALIKE = 0.8
_SETTING = 'NATS_CONSUMER["event_loop_policy"]'


def factory(choice: str | None) -> Factory | None:
    """Return the factory of "asyncio" or "uvloop", or of event_loop_policy; None leaves the loop
    to Python. Raises ConfigurationError if the policy cannot be imported or is none."""
    if choice == "asyncio":
        return asyncio.SelectorEventLoop
    path, what = settings.event_loop_policy(), _SETTING
    if choice == "uvloop":
        path, what = _UVLOOP, "--event-loop uvloop"
    if path is None:
        return None
    try:
        found = _factory_of(path, what)
    except ImportError as error:
        hint = (
            " Install it: pip install 'django-nats-consumer[uvloop]'." if "uvloop" in path else ""
        )
        raise ConfigurationError(f"{what} needs {path}, but {error}.{hint}") from error
    logger.info("Running on the event loop of %s.", path)
    return found


def check() -> None:
    """Raises ConfigurationError if event_loop_policy is not the path of a policy. A policy whose
    package is not installed passes: it is needed only where consumers run."""
    path = settings.event_loop_policy()
    if path is None:
        return
    try:
        _factory_of(path, _SETTING)
    except ImportError as error:
        if _is_installed(path) or _is_misspelt(path):
            raise ConfigurationError(
                f"{_SETTING} must be the dotted path of an event loop policy such as {_UVLOOP!r}: "
                f"{error}."
            ) from error


def _is_installed(path: str) -> bool:
    """Whether what the path leads into is there, so that it is the path that is wrong."""
    return "." not in path or find_spec(path.partition(".")[0]) is not None


def _is_misspelt(path: str) -> bool:
    package = path.partition(".")[0]
    return package != "uvloop" and bool(get_close_matches(package, ["uvloop"], cutoff=_ALIKE))


def _factory_of(path: str, what: str) -> Factory:
    try:
        policy = import_string(path)
    except (TypeError, ValueError) as error:  # it begins with a dot
        raise ConfigurationError(
            f"{what} must be the dotted path of an event loop policy such as {_UVLOOP!r}, "
            f"not {path!r}."
        ) from error
    if not callable(getattr(policy, "new_event_loop", None)):
        raise ConfigurationError(
            f"{what} must be the dotted path of an event loop policy such as {_UVLOOP!r}: {path} "
            "is not one."
        )
    made = policy() if isinstance(policy, type) else policy
    new_event_loop: Factory = made.new_event_loop
    return new_event_loop
