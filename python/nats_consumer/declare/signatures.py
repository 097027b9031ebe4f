"""Signatures of handler methods, checked before the first call."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ContextDecorator
from dis import Instruction, get_instructions
from inspect import (
    Signature,
    getattr_static,
    getclosurevars,
    isasyncgenfunction,
    isfunction,
    isgeneratorfunction,
    signature,
    unwrap,
)
from itertools import pairwise
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction

from nats_consumer.exceptions import ConfigurationError

from .batches import plan_of_handler
from .declaration import Declared

_T = TypeVar("_T")

_PARAMETERS = {
    "handle_message": ("message",),
    "handle_error": ("message", "error", "attempt"),
}
_OTHERS = (
    "To get the payload, annotate a parameter with its type; to get a token of the subject, call "
    'one like a name in braces of the subject, as in "orders.{id}".'
)


def check_signatures(consumer: Declared) -> None:
    """Raises ConfigurationError if the handler or handle_error cannot be called."""
    plan = plan_of_handler(consumer)
    faults = [] if plan is None else plan.problems
    faults += [
        _wrong_parameters(name, found)
        for name, parameters in _PARAMETERS.items()
        if name != "handle_message" or plan is None
        if (found := _signature(consumer, name)) and not _takes(found, 1 + len(parameters))
    ]
    faults += [
        f"{name} {fault}"
        for name in (*_PARAMETERS, "handle_batch")
        if (fault := _never_runs(getattr_static(consumer, name, None)))
    ]
    if faults:
        raise ConfigurationError(" ".join(faults))


def _wrong_parameters(name: str, found: Signature) -> str:
    wanted = ", ".join(("self", *_PARAMETERS[name]))
    text = f"{name} must take ({wanted}), not {found}."
    return f"{text} {_OTHERS}" if name == "handle_message" and len(found.parameters) > 1 else text


def unfit_method(handler: type, name: str) -> str | None:
    """Why a method of a ConsumerHandler cannot be called with the message alone, if it cannot."""
    found = _signature(handler, name)
    if found is None or _takes(found, 2):
        return None
    return f"{name} must take (self, message), not {found}. {_OTHERS}"


def check_methods(handler: type, names: Iterable[str]) -> None:
    """Raises TypeError if one of the methods cannot do its work."""
    for name in names:
        if fault := _never_runs(getattr_static(handler, name, None)):
            raise TypeError(f"{handler.__name__}.{name} {fault}")


def returns_nothing(handler: type, name: str) -> bool:
    """Whether the method is an `async def` that certainly returns None, by its code."""
    function = getattr_static(handler, name, None)
    if not isfunction(function) or not iscoroutinefunction(function):
        return False
    returns = [
        _is_nothing(before, each)
        for before, each in pairwise(get_instructions(function))
        if each.opname.startswith("RETURN_") and each.opname != "RETURN_GENERATOR"
    ]
    return bool(returns) and all(returns)


def _is_nothing(before: Instruction, each: Instruction) -> bool:
    if each.opname == "RETURN_CONST":
        return each.argval is None
    # What jumps there brings its own value. A return that a later Python has counts as a value.
    loads_none = before.opname == "LOAD_CONST" and before.argval is None
    return each.opname == "RETURN_VALUE" and loads_none and not each.is_jump_target


def _never_runs(function: object) -> str | None:
    """Why a call of the function does not do its work, if it certainly does not."""
    if not isfunction(function):
        return None
    inner = unwrap(function)
    if isgeneratorfunction(inner) or isasyncgenfunction(inner):
        return "contains `yield`, so calling it runs none of its code. Remove the `yield`."
    if not iscoroutinefunction(inner) or iscoroutinefunction(function):
        return None
    for decorator in _context_managers(function):
        return (
            f"is an `async def` inside the decorator {decorator}, which is left before the method "
            f"runs. Write the method as `def`, or use {decorator} in a `def` that it calls with "
            "sync_to_async()."
        )
    return None


def _context_managers(function: Any) -> Iterator[str]:
    """The names of the context managers that decorate the function."""
    while hasattr(function, "__wrapped__"):
        for value in getclosurevars(function).nonlocals.values():
            if isinstance(value, ContextDecorator):
                yield type(value).__name__.lower()
        function = function.__wrapped__


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
