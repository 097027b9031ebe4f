"""Subjects with names for some tokens: `orders.{id}.paid`. The engine reads and fills them.

A text without a brace never loads the engine: every management command imports declarations."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from uuid import UUID

from .exceptions import InvalidMessage
from .names import subject_problem

if TYPE_CHECKING:
    from ._native import Template, Tokens

# The value of a name; a datetime is none, although it is a date.
TokenValue: TypeAlias = str | int | UUID | date | Enum


def has_names(text: str) -> bool:
    """Whether the text is a template."""
    return "{" in text


@lru_cache(maxsize=1024)
def template(text: str) -> "Template":
    """The template of that text, which may have wildcards too. Raises ValueError, saying what is
    wrong with it."""
    from ._native import Template

    return Template(text)


def tokens_of(texts: Sequence[str], names: Sequence[str]) -> "Tokens":
    """The reader of what the names stand for in the subjects of these templates."""
    from ._native import Tokens

    return Tokens(texts, names)


def pattern_of(text: object) -> str:
    """The pattern of the subjects that a filter or a route means: `*` for each name. Raises
    ValueError, saying why NATS or the engine would refuse it."""
    if isinstance(text, str) and has_names(text):
        try:
            return template(text).pattern
        except ValueError as error:
            raise ValueError(f"{text!r} cannot be used: {error}") from error
    if problem := subject_problem(text):
        raise ValueError(problem)
    return cast(str, text)


def filled(text: str, values: Mapping[str, TokenValue]) -> str:
    """The subject with a token for each name. Raises TypeError if names and values do not agree, or
    a value is of another type, and InvalidMessage if the subject cannot be published to, as when a
    value is more than one token."""
    try:
        found = template(text)
    except ValueError as error:
        raise InvalidMessage(str(error)) from error
    if values.keys() != set(found.names):
        wanted = ", ".join(found.names) or "none"
        given = ", ".join(values) or "none"
        raise TypeError(
            f"{text!r} needs one value for each of its names ({wanted}), and the values are for: "
            f"{given}."
        )
    tokens = {name: token_of(name, value) for name, value in values.items()}
    try:
        return found.fill(tokens)
    except ValueError as error:
        raise InvalidMessage(str(error)) from error


def token_of(name: str, value: Any) -> str:
    """The value as a token. Raises TypeError for a value of another type."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool | datetime) or not isinstance(value, str | int | UUID | date):
        raise TypeError(
            f"The value for {name!r} in a subject must be text, an int, a UUID, a date or an Enum "
            f"of them, not {value!r}."
        )
    return str(value)
