"""Durables that the project declares, and the ones that a command names."""

from collections.abc import Iterable
from dataclasses import dataclass

from nats_consumer.declare import registry
from nats_consumer.declare.declaration import Declaration, is_overridden
from nats_consumer.declare.options import ConsumerOptions, consumer_options
from nats_consumer.declare.signatures import made_without_arguments
from nats_consumer.exceptions import ConfigurationError
from nats_consumer.names import check_name
from nats_consumer.settings import DEFAULT_CONNECTION, check_connection

# Their answers come from an instance only.
_OWN_ANSWERS = ("get_durable_name", "get_filter_subject")


@dataclass(frozen=True, kw_only=True)
class Durable:
    """A durable that a command is about. `consumer` is the class that declares it, if one does."""

    connection: str
    stream: str
    name: str
    consumer: str | None = None

    def __str__(self) -> str:
        return f"{self.stream}/{self.name}"


def declared_options(
    names: Iterable[str] | None = None, using: str | None = None
) -> list[ConsumerOptions]:
    """The options of the consumers called `names`, or of all; with `using`, of those on this
    connection. Raises ConfigurationError and ConsumerNotFound."""
    if using is not None:
        check_connection(using)
    found = [options_of(consumer) for consumer in registry.consumers_named(names)]
    return [each for each in found if using in (None, each.connection)]


def options_of(consumer: type[Declaration]) -> ConsumerOptions:
    """The options of a consumer class, as its worker has them. Raises ConfigurationError."""
    is_asked = any(is_overridden(consumer, method) for method in _OWN_ANSWERS)
    return consumer_options(made_without_arguments(consumer) if is_asked else consumer)


def chosen_durables(names: list[str], *, all_declared: bool, using: str | None) -> list[Durable]:
    """The durables that `names` stand for: classes, or "stream/durable" on the connection `using`.
    With `all_declared`, those of all classes, on `using` if that is given. Raises ValueError for
    no name, ConfigurationError and ConsumerNotFound."""
    if bool(names) == all_declared:
        raise ValueError("Name consumers, as CLASS or STREAM/DURABLE, or add --all.")
    if all_declared:
        lasting = (each for each in declared_options(using=using) if each.ephemeral is None)
        return [_durable_of(each) for each in lasting]
    return list(dict.fromkeys(_durable_called(name, using) for name in names))


def _durable_called(name: str, using: str | None) -> Durable:
    stream, slash, durable = name.partition("/")
    if slash:
        check_name(stream, "the name of a stream")
        check_name(durable, "the name of a durable")
        connection = check_connection(using or DEFAULT_CONNECTION)
        return _declared_at(connection, stream, durable)
    [options] = declared_options([name])
    if options.ephemeral is not None:
        raise ConfigurationError(
            f"{name} is ephemeral: each process has a durable of its own. Name one as "
            f"{options.stream}/DURABLE; `nats_durable list` shows them."
        )
    if using not in (None, options.connection):
        raise ConfigurationError(
            f"{name} is on the connection {options.connection}, not on {using}."
        )
    return _durable_of(options)


def _declared_at(connection: str, stream: str, name: str) -> Durable:
    place = (connection, stream, name)
    declared = [_durable_of(each) for each in declared_options()]
    found = (each for each in declared if (each.connection, each.stream, each.name) == place)
    return next(found, Durable(connection=connection, stream=stream, name=name))


def _durable_of(options: ConsumerOptions) -> Durable:
    return Durable(
        connection=options.connection,
        stream=options.stream,
        name=options.durable,
        consumer=options.name,
    )
