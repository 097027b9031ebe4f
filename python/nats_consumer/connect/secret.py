"""Secrets in settings: logs, tracebacks and Django's debug page show the repr() of a value, which
hides them."""

from collections.abc import Mapping
from typing import Any, Self

_SECRETS = ("password", "token", "nkeys_seed", "nkeys_seed_str")
_COLLECTIONS = (list, tuple, set, frozenset)


class Secret(str):
    """A text whose repr() is asterisks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Address(str):
    """The URL of a server, whose repr() leaves out the credentials."""

    __slots__ = ()

    def __repr__(self) -> str:
        scheme, credentials, host = self._parts()
        return repr(f"{scheme}{'***@' if credentials else ''}{host}")

    def strip(self, characters: str | None = None, /) -> Self:
        """Return an address, stripped like a str."""
        return type(self)(super().strip(characters))

    def has_credentials(self) -> bool:
        """Whether the URL holds a user with a password, or a token."""
        return bool(self._parts()[1])

    def without_credentials(self) -> str:
        """The URL for everybody to see, with its scheme."""
        scheme, _, host = self._parts()
        return f"{scheme or 'nats://'}{host}"

    def _parts(self) -> tuple[str, str, str]:
        scheme, mark, rest = self.rpartition("://")
        credentials, _, host = rest.rpartition("@")
        return scheme + mark, credentials, host


def conceal(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The `connect_args`, those that are secret as texts that do not show."""
    return {name: _concealed(name, value) for name, value in arguments.items()}


def _concealed(name: str, value: Any) -> Any:
    if name in _SECRETS:
        return _secret(value)
    if name != "servers":
        return value
    if isinstance(value, str):
        return [Address(part) for part in value.split(",")]
    if isinstance(value, _COLLECTIONS):
        return type(value)(Address(each) if isinstance(each, str) else each for each in value)
    return value


def _secret(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return value  # the reader refuses it
    return Secret(value) if isinstance(value, str) else value
