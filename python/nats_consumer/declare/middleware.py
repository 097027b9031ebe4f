"""The middleware of NATS_CONSUMER["middleware"]: factories, as Django's are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import MiddlewareNotUsed

from nats_consumer import settings
from nats_consumer.exceptions import ConfigurationError

Call: TypeAlias = Callable[[Any], Any]
"""Takes a message, or the list of messages of a batch. An `async def` where the handler is one."""


@dataclass(frozen=True)
class Middleware:
    """A factory that takes the next call and returns the call around it. `path` is where the
    settings find it."""

    path: str
    factory: Callable[[Call], Any]

    def refusal(self, *, is_async: bool) -> str | None:
        """Why it cannot be around handlers of this kind; None if it can."""
        attribute, kind = ("async_capable", "async def") if is_async else ("sync_capable", "def")
        if getattr(self.factory, attribute, not is_async):
            return None
        return (
            f"the middleware {self.path} does not work for `{kind}` handlers, because its "
            f"{attribute} is not True. Decorate it with "
            "django.utils.decorators.sync_and_async_middleware and handle both kinds."
        )

    def around(self, call: Call) -> Call:
        """The call within it; `call` itself if it is not used. Raises ConfigurationError."""
        is_async = iscoroutinefunction(call)
        if problem := self.refusal(is_async=is_async):
            raise ConfigurationError(problem)
        try:
            made = self.factory(call)
        except MiddlewareNotUsed:
            return call
        if not callable(made):
            raise ConfigurationError(
                f"the middleware {self.path} returned {made!r}: it must return a callable."
            )
        if iscoroutinefunction(made) != is_async:
            wanted, got = ("async def", "def") if is_async else ("def", "async def")
            raise ConfigurationError(
                f"the middleware {self.path} returned a `{got}` for a `{wanted}` handler."
            )
        checked: Call = made
        return checked


def middleware() -> Sequence[Middleware]:
    """The middleware of the settings, outermost first. Raises ConfigurationError for what cannot
    be imported."""
    return [
        Middleware(path, settings.imported("middleware", path)) for path in settings.middleware()
    ]


def within(layers: Sequence[Middleware], call: Call, seal: Callable[[Call, str], Call]) -> Call:
    """The call within the middleware. `seal` is what is put around the call itself, and around that
    of each middleware with its path, as Django puts its conversion of exceptions there."""
    inner = seal(call, "")
    for each in reversed(layers):
        made = each.around(inner)
        if made is not inner:
            inner = seal(made, each.path)
    return inner
