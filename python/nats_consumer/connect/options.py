"""ConnectOptions: what the engine needs to reach the server."""

from collections.abc import Callable
from dataclasses import dataclass

# The value of `servers` that asks for the embedded server.
EMBEDDED = "embedded"
# A user's seed begins with this; the path of a file with a seed does not.
SEED = "SU"


@dataclass(frozen=True, kw_only=True)
class ConnectOptions:
    """Options of a connection. Times are seconds; `max_reconnect_attempts` -1: no limit."""

    servers: list[str]
    # The connection of the settings.
    using: str = "default"
    name: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | Callable[[], str] | None = None
    credentials: str | None = None
    credentials_seed: str | None = None
    nkey_seed: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_required: bool | None = None
    api_prefix: str | None = None
    inbox_prefix: str | None = None
    allow_reconnect: bool = True
    max_reconnect_attempts: int = -1
    reconnect_time_wait: float = 2.0
    connect_timeout: float = 2.0
    ping_interval: float = 10.0
    no_echo: bool = False
