"""What handle_message and handle_error may look like."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from nats_consumer import JetstreamPullConsumer
from nats_consumer.declare.signatures import check_signatures
from nats_consumer.exceptions import ConfigurationError


def with_connection(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, message: Any) -> Any:
        return method(self, message, "connection")

    return call


class Injected(JetstreamPullConsumer):
    @with_connection
    def handle_message(self, message: Any, connection: str) -> None: ...


class Lenient(JetstreamPullConsumer):
    def handle_message(self, message: Any, *, log: bool = True) -> None: ...

    def handle_error(self, *_: Any) -> None: ...


class Static(JetstreamPullConsumer):
    @staticmethod
    def handle_message(message: Any) -> None: ...


class Plain(JetstreamPullConsumer):
    handle_message = print


@pytest.mark.parametrize("consumer", [Injected, Lenient, Static, Plain])
def test_whatever_can_be_called_passes(consumer: type[JetstreamPullConsumer]) -> None:
    check_signatures(consumer)
    check_signatures(consumer())


class Forgetful(JetstreamPullConsumer):
    def handle_message() -> None:  # type: ignore[misc]
        ...


@pytest.mark.parametrize("consumer", [Forgetful, Forgetful()])
def test_a_method_without_self_is_named_with_what_it_must_take(consumer: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"handle_message must take \(self, message\), no"):
        check_signatures(consumer)
