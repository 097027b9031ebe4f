"""Every consumer class of the project, by name."""

from collections import defaultdict
from collections.abc import Iterable
from difflib import get_close_matches
from inspect import isabstract
from typing import TYPE_CHECKING

from .exceptions import ConfigurationError, ConsumerNotFound

if TYPE_CHECKING:
    from .consumer import NatsConsumer

_declared: dict[str, type["NatsConsumer"]] = {}


def label(consumer: type["NatsConsumer"]) -> str:
    """The class with its module, so that two of one name can be told apart."""
    return f"{consumer.__module__}.{consumer.__qualname__}"


def class_of(consumer: "type[NatsConsumer] | NatsConsumer") -> type["NatsConsumer"]:
    """The class itself, or that of an instance."""
    return consumer if isinstance(consumer, type) else type(consumer)


def project_classes(consumer: "type[NatsConsumer] | NatsConsumer") -> list[type]:
    """The consumer's class and what it derives from, without our own classes."""
    own = f"{__package__}.consumer"
    return [cls for cls in class_of(consumer).__mro__ if cls.__module__ != own]


def register(consumer: type["NatsConsumer"]) -> None:
    """Remember the class."""
    _declared[label(consumer)] = consumer


def consumers() -> list[type["NatsConsumer"]]:
    """The classes that can be run, in the order of their definition."""
    return [consumer for consumer in _declared.values() if not _is_base(consumer)]


def duplicates() -> list[list[type["NatsConsumer"]]]:
    """The classes that share their name with another one, grouped by name."""
    by_name = defaultdict(list)
    for consumer in consumers():
        by_name[consumer.__name__].append(consumer)
    return [group for group in by_name.values() if len(group) > 1]


def consumer_named(name: str) -> type["NatsConsumer"]:
    """The class called `name`. Raises ConsumerNotFound, listing what there is, and
    ConfigurationError if several classes have that name."""
    found = [consumer for consumer in consumers() if consumer.__name__ == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigurationError(duplicate_message(found))
    raise ConsumerNotFound(_why_not_found(name))


def consumers_named(names: Iterable[str] | None) -> list[type["NatsConsumer"]]:
    """The classes called `names`, each once, in their order of definition; all of them if there
    are no names. Raises like consumer_named."""
    wanted = list(names or ())
    chosen = [consumer_named(name) for name in wanted or (c.__name__ for c in consumers())]
    return [consumer for consumer in consumers() if consumer in chosen]


def duplicate_message(same_name: list[type["NatsConsumer"]]) -> str:
    """What to say of several classes with one name."""
    places = " and ".join(label(consumer) for consumer in same_name)
    return f"{same_name[0].__name__!r} names {len(same_name)} consumers: {places}. Rename one."


def _is_base(consumer: type["NatsConsumer"]) -> bool:
    # A class that lacks its handler and has heirs is a base; without heirs it is a mistake, which
    # the checks report.
    if not consumer.stream_name or isabstract(consumer):
        return True
    has_handler = callable(getattr(consumer, "handle_message", None))
    return not has_handler and bool(consumer.__subclasses__())


def _what_it_lacks(base: type["NatsConsumer"]) -> str:
    if isabstract(base):
        methods = ", ".join(sorted(vars(base)["__abstractmethods__"]))
        return f"is abstract: derive a class from it that implements {methods}."
    lacks = "handle_message" if base.stream_name else "stream_name"
    return f"has no {lacks}, so it cannot run. Give it one."


def _why_not_found(name: str) -> str:
    for consumer in _declared.values():
        if consumer.__name__ == name:
            return f"{label(consumer)} {_what_it_lacks(consumer)}"
    known = sorted(consumer.__name__ for consumer in consumers())
    if not known:
        return f"There is no consumer {name!r}: no consumer is registered."
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no consumer {name!r}.{hint} Registered: {', '.join(known)}."
