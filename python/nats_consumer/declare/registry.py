"""Every consumer class of the project, by name."""

from collections.abc import Iterable
from difflib import get_close_matches
from inspect import isabstract

from django.apps import apps

from nats_consumer.exceptions import ConfigurationError, ConsumerNotFound

from .declaration import Declaration, label

_declared: dict[str, type[Declaration]] = {}


def register(consumer: type[Declaration]) -> None:
    """Remember the class."""
    _declared[label(consumer)] = consumer


def consumers() -> list[type[Declaration]]:
    """The classes that can be run, in the order of their definition."""
    return [consumer for consumer in _declared.values() if not _is_base(consumer)]


def bases() -> list[type[Declaration]]:
    """The classes that cannot be run, in the order of their definition."""
    return [consumer for consumer in _declared.values() if _is_base(consumer)]


def consumer_named(name: str) -> type[Declaration]:
    """The class called `name`, or "app_label.Name". Raises ConsumerNotFound, listing what there
    is, and ConfigurationError if several classes have that name."""
    found = [consumer for consumer in consumers() if name in _names(consumer)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigurationError(_ambiguous(name, found))
    raise ConsumerNotFound(_why_not_found(name))


def consumers_named(names: Iterable[str] | None) -> list[type[Declaration]]:
    """The classes called `names`, each once, in their order of definition; all of them if there
    are no names. Raises like consumer_named."""
    chosen = [consumer_named(name) for name in names or ()]
    return [consumer for consumer in consumers() if not chosen or consumer in chosen]


def _names(consumer: type[Declaration]) -> tuple[str, ...]:
    return consumer.__name__, _app_name(consumer), label(consumer)


def _app_name(consumer: type[Declaration]) -> str:
    config = apps.get_containing_app_config(consumer.__module__)
    return f"{config.label}.{consumer.__name__}" if config else label(consumer)


def _unique_names(found: list[type[Declaration]]) -> list[str]:
    """The shortest names that tell the classes apart."""
    for names in zip(*map(_names, found), strict=True):
        if len(set(names)) == len(found):
            return list(names)
    return list(map(label, found))


def _ambiguous(name: str, found: list[type[Declaration]]) -> str:
    places = " and ".join(map(label, found))
    return (
        f"{name!r} names {len(found)} consumers: {places}. Write "
        f"{' or '.join(_unique_names(found))}."
    )


def _is_base(consumer: type[Declaration]) -> bool:
    # A class that lacks its handler and has heirs is a base; without heirs it is a mistake, which
    # the checks report.
    if not consumer.stream_name or isabstract(consumer):
        return True
    names = ("handle_message", "handle_batch")
    has_handler = any(callable(getattr(consumer, name, None)) for name in names)
    return not has_handler and bool(consumer.__subclasses__())


def _what_it_lacks(base: type[Declaration]) -> str:
    if isabstract(base):
        methods = ", ".join(sorted(vars(base)["__abstractmethods__"]))
        return f"is abstract: derive a class from it that implements {methods}."
    lacks = "handle_message" if base.stream_name else "stream_name"
    return f"has no {lacks}, so it cannot run. Give it one."


def _why_not_found(name: str) -> str:
    for consumer in _declared.values():
        if consumer.__name__ == name:
            return f"{label(consumer)} {_what_it_lacks(consumer)}"
    known = sorted(_unique_names(consumers()))
    if not known:
        return f"There is no consumer {name!r}: no consumer is registered."
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no consumer {name!r}.{hint} Registered: {', '.join(known)}."
