"""Signatures of handler methods, checked before the first call."""

from collections.abc import Callable
from inspect import Signature, getattr_static, isfunction, signature
from typing import Any, TypeVar

from nats_consumer.exceptions import ConfigurationError

from .declaration import Declared

_T = TypeVar("_T")

_PARAMETERS = {
    "handle_message": ("message",),
    "handle_error": ("message", "error", "attempt"),
}


def check_signatures(consumer: Declared) -> None:
    """Raises ConfigurationError if handle_message or handle_error cannot be called."""
    faults = [
        f"{name} must take ({', '.join(('self', *parameters))}), not {found}."
        for name, parameters in _PARAMETERS.items()
        if (found := _signature(consumer, name)) and not _takes(found, 1 + len(parameters))
    ]
    if faults:
        raise ConfigurationError(" ".join(faults))


def made_without_arguments(consumer: type[_T]) -> _T:
    """An instance of the class. Raises ConfigurationError if its __init__ needs arguments."""
    found = _signature(consumer, "__init__")
    if found and not _takes(found, 1):
        raise ConfigurationError(
            f"{consumer.__name__} is created without arguments, but its __init__ takes {found}. "
            "Give them defaults, or set them as attributes of the class."
        )
    return consumer()


def _signature(consumer: object, name: str) -> Signature | None:
    # Only plain functions of the class: what else can stand there says too little of itself.
    cls = consumer if isinstance(consumer, type) else type(consumer)
    method: Callable[..., Any] | None = getattr_static(cls, name, None)
    # A decorator may fill in arguments that the function below it takes.
    return signature(method, follow_wrapped=False) if isfunction(method) else None


def _takes(found: Signature, count: int) -> bool:
    try:
        found.bind(*[None] * count)
    except TypeError:
        return False
    return True
