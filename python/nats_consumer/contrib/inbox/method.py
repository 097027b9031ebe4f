"""@idempotent, for single methods of a ConsumerHandler."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from asgiref.sync import iscoroutinefunction

from nats_consumer.declare import once

_Method = TypeVar("_Method", bound=Callable[..., Any])


@overload
def idempotent(method: _Method) -> _Method: ...
@overload
def idempotent(*, using: str | None = None) -> Callable[[_Method], _Method]: ...
def idempotent(method: Any = None, *, using: str | None = None) -> Any:
    """Mark a plain `def` method of a ConsumerHandler: it runs once for each message, in a
    transaction on the database `using`, by default the one that Django's routers name for the
    inbox. Raises TypeError for an `async def`."""
    if method is None:
        return lambda method: _marked(method, using)
    return _marked(method, using)


def _marked(method: _Method, using: str | None) -> _Method:
    if iscoroutinefunction(method):
        raise TypeError(
            f"{method.__qualname__} cannot be idempotent: Django has no asynchronous transactions. "
            "Write it as a plain `def`."
        )
    once.mark(method, using)
    return method
