"""How the JetStream API's structs become JSON and come back.

Times are seconds here and nanoseconds on the wire. A field that is None is not sent; what a newer
server sends besides is left out."""

from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, ClassVar, Self

_NANOSECONDS = 1_000_000_000


def to_nanoseconds(seconds: float | timedelta) -> int:
    """Seconds, or a timedelta, as the server counts them."""
    value = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    return round(value * _NANOSECONDS)


def from_nanoseconds(nanoseconds: int) -> float:
    """Return the server's nanoseconds as seconds."""
    return nanoseconds / _NANOSECONDS


def to_timestamp(moment: datetime | str) -> str:
    """A moment as the server writes it. One without a time zone is UTC; a text is left as it is."""
    if isinstance(moment, str):
        return moment
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def from_timestamp(text: str) -> datetime:
    """A moment of the server in UTC, to the microsecond."""
    return datetime.fromisoformat(text).astimezone(UTC)


def seconds() -> Any:
    """A field in seconds; a timedelta does as well."""
    return _field(to_nanoseconds, from_nanoseconds)


def each_in_seconds() -> Any:
    """A field that is a list of seconds."""
    return _field(
        lambda values: [to_nanoseconds(value) for value in values],
        lambda values: [from_nanoseconds(value) for value in values],
    )


def moment() -> Any:
    """A field that is a datetime."""
    return _field(to_timestamp, from_timestamp)


def struct(kind: type["Struct"]) -> Any:
    """A field that is another struct; a dict of its fields does as well."""
    return _field(Struct.as_dict, kind.from_response, kind.coerce)


def structs(kind: type["Struct"]) -> Any:
    """A field that is a list of other structs."""
    return _field(
        lambda values: [value.as_dict() for value in values],
        lambda values: [kind.from_response(value) for value in values],
        lambda values: [kind.coerce(value) for value in values],
    )


class Struct:
    """A struct of the API: what its dataclasses, frozen or not, have in common."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    # Beside the fields that nobody set: an update leaves those as they are.
    taken_away: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        for each in fields(self):
            coerce, value = each.metadata.get("coerce"), getattr(self, each.name)
            if coerce and value is not None:
                object.__setattr__(self, each.name, coerce(value))

    @classmethod
    def coerce(cls, value: Any) -> Self:
        """The struct itself; or that of a dict, with times in seconds; or that of nats-py's struct.
        Raises TypeError for anything else."""
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            return cls(**value)
        if callable(write := getattr(value, "as_dict", None)):
            return cls.from_response(write())
        raise TypeError(f"{value!r} is neither a {cls.__name__} nor a dict of its fields.")

    @classmethod
    def from_response(cls, wire: Mapping[str, Any]) -> Self:
        """Read an object that the server sent."""
        values: dict[str, Any] = {}
        for each in fields(cls):
            value = wire.get(each.name)
            if value is not None:
                read = each.metadata.get("read")
                values[each.name] = read(value) if read else value
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are set, as they go over the wire."""
        wire: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None:
                write = each.metadata.get("write", _plain)
                wire[each.name] = write(value)
        return wire

    def evolve(self, **changes: Any) -> Self:
        """A copy with the `changes`. A field that becomes None is one of those `taken_away`."""
        copy = replace(self, **changes)
        gone = {name for name in changes if getattr(copy, name) is None}
        object.__setattr__(copy, "taken_away", (self.taken_away - changes.keys()) | gone)
        return copy


def _field(
    write: Callable[[Any], Any],
    read: Callable[[Any], Any],
    coerce: Callable[[Any], Any] | None = None,
) -> Any:
    return field(default=None, metadata={"write": write, "read": read, "coerce": coerce})


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
