"""Events: a payload class, its subject, its version and its encoding, declared once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from nats_consumer.names import is_wildcard
from nats_consumer.templates import TokenValue, has_names, pattern_of, template

from . import libraries

_Kind = TypeVar("_Kind", bound=type)
Encoding: TypeAlias = Literal["json", "msgpack"]

_MISSING: Any = object()


@dataclass(frozen=True, kw_only=True)
class Event:
    """The declaration of a payload class by @event."""

    kind: type
    subject: str
    version: int
    encoding: Encoding
    description: str | None

    @property
    def label(self) -> str:
        """The class's name and the version, as the header Event-Type has them."""
        return f"{self.kind.__name__}; version={self.version}"


_events: dict[type, Event] = {}


def event(
    subject: str,
    *,
    version: int = 1,
    encoding: Encoding = "json",
    description: str | None = None,
) -> Callable[[_Kind], _Kind]:
    """Declare the subject of a payload class: of msgspec or pydantic, a dataclass or a TypedDict.

    publish(), filters and @handle take the class then. A name in the subject, such as `{id}`, is
    the field of that name, or an argument of publish(). `version` informs; a change that readers
    must know of is a new subject. `encoding` is "json", or "msgpack" with msgspec. Raises TypeError
    or ValueError for what cannot be declared."""
    pattern_of(subject)
    if is_wildcard(subject):
        raise ValueError(f"{subject!r} has a wildcard, so nothing can be published to it.")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise TypeError(f"version must be a whole number, at least 1, not {version!r}.")
    if encoding not in ("json", "msgpack"):
        raise ValueError(f"encoding must be 'json' or 'msgpack', not {encoding!r}.")

    def register(kind: _Kind) -> _Kind:
        if not isinstance(kind, type):
            raise TypeError(f"@event marks a class, not {kind!r}.")
        if encoding == "msgpack" and libraries.is_model(kind):
            raise TypeError(f"{kind.__name__} is a class of pydantic, which has no MessagePack.")
        _events[kind] = Event(
            kind=kind, subject=subject, version=version, encoding=encoding, description=description
        )
        return kind

    return register


def events() -> list[Event]:
    """All events, in the order of their definition."""
    return list(_events.values())


def event_of(kind: object) -> Event | None:
    """The event that the class is declared as, or None."""
    return _events.get(kind) if isinstance(kind, type) else None


def subject_text(subject: Any) -> Any:
    """The subject that an event class stands for; anything else as it is. Raises ValueError for
    another class."""
    if not isinstance(subject, type):
        return subject
    found = event_of(subject)
    if found is None:
        raise ValueError(f"{subject.__name__} has no subject: mark the class with @event('...')")
    return found.subject


def values_for(
    found: Event, data: Any, given: Mapping[str, TokenValue]
) -> Mapping[str, TokenValue]:
    """A value for each name in the event's subject: the given one, or the field of that name."""
    if not has_names(found.subject):
        return given
    fields = {name: _field(data, name) for name in template(found.subject).names}
    return {**{name: value for name, value in fields.items() if value is not _MISSING}, **given}


def _field(data: Any, name: str) -> Any:
    if isinstance(data, Mapping):
        return data.get(name, _MISSING)
    return getattr(data, name, _MISSING)
