"""Options completed with what has to be looked up outside the settings."""

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from nats_consumer import settings
from nats_consumer.exceptions import ConfigurationError

from .args import connect_options, named
from .options import EMBEDDED, SEED, ConnectOptions
from .secret import Address, Secret

_DEFAULT_PORT = 4222


def resolve(options: ConnectOptions) -> ConnectOptions:
    """The options with what has to be looked up: starts or joins the embedded server, reads the
    nkey seed. Blocking. Raises ConfigurationError if a file cannot be read."""
    if options.servers == [EMBEDDED]:
        from .embedded import server_url

        options = replace(options, servers=[server_url(settings.embedded_store(options.using))])
    if options.nkey_seed and not options.nkey_seed.startswith(SEED):
        options = replace(options, nkey_seed=_read_seed(options.nkey_seed, named(options.using)))
    return options


def display_servers(connected_url: str | None, using: str = settings.DEFAULT_CONNECTION) -> str:
    """The servers that NATS_CONSUMER names for a connection, without credentials: for a command to
    say where it acts. `connected_url` is what the server calls itself, which names the embedded
    one."""
    servers = connect_options(using=using).servers
    if servers == [EMBEDDED]:
        return f"{connected_url} ({EMBEDDED})"
    return ", ".join(Address(server).without_credentials() for server in servers)


def _read_seed(path: str, where: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f'{where}["nkeys_seed"] is the path of a file with the seed: {error}.'
        ) from error
    # The file may hold the seed alone, or between lines that say what it is.
    seeds = [Secret(line.strip()) for line in lines if line.strip().startswith(SEED)]
    if not seeds:
        raise ConfigurationError(
            f'{where}["nkeys_seed"]: {path} does not contain a seed, which begins with {SEED}.'
        )
    return seeds[0]


def only_server(using: str = settings.DEFAULT_CONNECTION) -> tuple[str, int] | None:
    """Host and port of the server that NATS_CONSUMER names for a connection. None if it names
    several, or the embedded one. Raises ConfigurationError."""
    servers = connect_options(using=using).servers
    if len(servers) != 1 or servers == [EMBEDDED]:
        return None
    parts = urlsplit(Address(servers[0]).without_credentials())
    return parts.hostname or "", parts.port or _DEFAULT_PORT
