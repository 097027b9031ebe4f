"""The middleware of NATS_CONSUMER["publish_middleware"]: a context around each publishing."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from django.core.signals import setting_changed

from nats_consumer import settings
from nats_consumer.settings import DEFAULT_CONNECTION

from .drafts import Draft, Outgoing, draft_of, pack

if TYPE_CHECKING:
    from nats_consumer._native import Drafts

Around: TypeAlias = Callable[[list[Outgoing]], AbstractContextManager[Any]]
"""Takes the messages of one call, and returns a context manager around it."""

_connection = ContextVar("nats_consumer_connection", default=DEFAULT_CONNECTION)


def current_connection() -> str:
    """The alias of the connection that the call publishes to whose middleware runs."""
    return _connection.get()


@cache
def publish_middleware() -> Sequence[Around]:
    """The middleware of the settings, outermost first. Raises ConfigurationError for what cannot
    be imported."""
    return [settings.imported("publish_middleware", path) for path in settings.publish_middleware()]


def around(drafts: Sequence[Draft], using: str) -> AbstractContextManager[Sequence[Draft]]:
    """The context of the call that publishes these, with what the middleware makes of them."""
    layers = publish_middleware()
    return _entered(layers, drafts, using) if layers else nullcontext(drafts)


def around_all(drafts: "Drafts", using: str) -> "AbstractContextManager[Drafts]":
    """The same for those of publish_many()."""
    layers = publish_middleware()
    return _entered_with_all(layers, drafts, using) if layers else nullcontext(drafts)


@contextmanager
def _entered(
    layers: Sequence[Around], drafts: Iterable[Draft], using: str
) -> Iterator[Sequence[Draft]]:
    messages = [Outgoing(subject, data, dict(headers or {})) for subject, data, headers in drafts]
    token = _connection.set(using)
    try:
        with ExitStack() as stack:
            for each in layers:
                stack.enter_context(each(messages))
            # A subject with values is one that a middleware has put there.
            yield [draft_of(each, is_filled=each.values is None) for each in messages]
    finally:
        _connection.reset(token)


@contextmanager
def _entered_with_all(layers: Sequence[Around], drafts: "Drafts", using: str) -> "Iterator[Drafts]":
    of_all = (drafts[index] for index in range(len(drafts)))
    with _entered(layers, of_all, using) as changed:
        yield pack(changed)


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "NATS_CONSUMER":
        publish_middleware.cache_clear()


setting_changed.connect(_forget)
