"""Validation of values that a project gives: settings, attributes, arguments."""

from difflib import get_close_matches
from math import isfinite
from typing import TypeGuard

from .exceptions import ConfigurationError

# Comparing a key with those that exist takes time with the square of its length.
_LONGEST_KEY = 100
# The engine counts in 64 bits with a sign.
_MOST = 2**63 - 1


def unknown_key(
    key: str, known: tuple[str, ...], where: str, what: str = "key"
) -> ConfigurationError:
    """The error for a key that does not exist, with the ones that look like it. `what` it is
    called `where` it was given."""
    close = get_close_matches(str(key)[:_LONGEST_KEY], known, n=3)
    hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"It knows: {known}."
    return ConfigurationError(f"{where} has no {what} {key!r}. {hint}")


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
