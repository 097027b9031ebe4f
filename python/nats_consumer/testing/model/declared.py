"""The streams that a project's consumers declare."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nats_consumer.api import StreamConfig
from nats_consumer.declare.filters import filter_of
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.lanes.blocking import wait_for
from nats_consumer.run.keep_running import setup_operations
from nats_consumer.settings import DEFAULT_CONNECTION
from nats_consumer.streams.operations import CreateOrUpdateStream, CreateStream, UpdateStream

from .server import Server

if TYPE_CHECKING:
    from nats_consumer.consumer import NatsConsumer


def make_servers(
    consumers: "Sequence[NatsConsumer]", given: Iterable[StreamConfig] | None
) -> dict[str, Server]:
    """The server of each connection, with the given streams, or those of the consumers. Raises
    ConfigurationError if a consumer's stream is not among the given ones."""
    if given is None:
        return {
            using: Server(_declared(group), is_strict=False)
            for using, group in _by_connection(consumers).items()
        }
    configs = list(given)
    names = {str(config.name) for config in configs}
    for each in consumers:
        if str(each.stream_name) not in names:
            raise ConfigurationError(
                f"{each.consumer_name} reads the stream {each.stream_name}, which is not among the "
                f"`streams` of the test: {', '.join(sorted(names))}."
            )
    aliases = {DEFAULT_CONNECTION, *_by_connection(consumers)}
    return {using: Server(configs, is_strict=True) for using in aliases}


def _by_connection(consumers: "Sequence[NatsConsumer]") -> "dict[str, list[NatsConsumer]]":
    groups: dict[str, list[NatsConsumer]] = {}
    for each in consumers:
        groups.setdefault(each.connection, []).append(each)
    return groups


def _declared(consumers: "Sequence[NatsConsumer]") -> list[StreamConfig]:
    """The streams of setup(), and those that are known by the filters of their consumers only."""
    configs: dict[str, StreamConfig] = {}
    for each in consumers:
        if hasattr(each, "setup"):
            configs |= {str(config.name): config for config in wait_for(_of_setup(each))}
    declared = set(configs)
    for name in dict.fromkeys(str(each.stream_name) for each in consumers):
        config = configs.get(name, StreamConfig(name=name))
        if not config.subjects:
            readers = [each for each in consumers if each.stream_name == name]
            filters = [subject for each in readers for subject in filter_of(each)]
            config = replace(config, subjects=list(dict.fromkeys(filters)))
        configs[name] = config if name in declared else _with_room(config)
    return list(configs.values())


def _with_room(config: StreamConfig) -> StreamConfig:
    """The stream, of which only the filters are known, with what messages for later need."""
    subjects = [*(config.subjects or []), *(f"_later.*.{each}" for each in config.subjects or [])]
    return replace(config, subjects=subjects, allow_msg_schedules=True, allow_msg_ttl=True)


async def _of_setup(consumer: "NatsConsumer") -> list[StreamConfig]:
    operations = await setup_operations(consumer)
    return [
        each.config
        for each in operations
        if isinstance(each, CreateStream | CreateOrUpdateStream | UpdateStream)
    ]
