"""Signatures of handle_message and handle_error."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from django.db import transaction

from nats_consumer import Ack, ConsumerHandler, JetstreamPullConsumer, handle
from nats_consumer.checks.rolled_back import raises_ack_in_transaction
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


class Generating(JetstreamPullConsumer):
    def handle_message(self, message: Any) -> Any:
        yield 1


class GeneratingOnTheLoop(JetstreamPullConsumer):
    async def handle_message(self, message: Any) -> Any:
        yield 1


@pytest.mark.parametrize("consumer", [Generating, GeneratingOnTheLoop])
def test_a_handler_with_a_yield_is_refused(consumer: Any) -> None:
    with pytest.raises(ConfigurationError, match="handle_message contains `yield`"):
        check_signatures(consumer)


def test_a_transaction_that_ends_before_the_async_handler_runs_is_refused() -> None:
    class Orders(JetstreamPullConsumer):
        @transaction.atomic
        async def handle_message(self, message: Any) -> None: ...

    with pytest.raises(ConfigurationError, match="inside the decorator atomic, which is left"):
        check_signatures(Orders)


def test_a_transaction_around_a_def_handler_passes() -> None:
    class Orders(JetstreamPullConsumer):
        @transaction.atomic
        def handle_message(self, message: Any) -> None: ...

    check_signatures(Orders)


def test_a_method_of_a_consumer_handler_that_never_runs_is_refused() -> None:
    class Handler(ConsumerHandler):
        @handle("orders.*")
        async def write(self, message: Any) -> Any:
            yield 1

    with pytest.raises(TypeError, match=r"Handler\.write contains `yield`"):
        Handler()


def test_a_fallback_that_never_runs_is_refused() -> None:
    class Generating(ConsumerHandler):
        async def fallback_handle(self, msg: Any, reason: str = "unknown") -> Any:
            yield 1

    class Outside(ConsumerHandler):
        @transaction.atomic
        async def fallback_handle(self, msg: Any, reason: str = "unknown") -> None: ...

    with pytest.raises(TypeError, match=r"Generating\.fallback_handle contains `yield`"):
        Generating(["orders.created"])
    with pytest.raises(TypeError, match=r"Outside\.fallback_handle is an `async def` inside"):
        Outside(["orders.created"])


class RaisingInside(JetstreamPullConsumer):
    def handle_message(self, message: Any) -> None:
        with transaction.atomic():
            raise Ack


class RaisingDecorated(JetstreamPullConsumer):
    @transaction.atomic
    def handle_message(self, message: Any) -> None:
        raise Ack()


class RaisingAfter(JetstreamPullConsumer):
    def handle_message(self, message: Any) -> None:
        with transaction.atomic():
            pass
        raise Ack


@pytest.mark.parametrize(
    ("consumer", "found"), [(RaisingInside, True), (RaisingDecorated, True), (RaisingAfter, False)]
)
def test_an_ack_that_is_raised_in_a_transaction_is_found(consumer: Any, found: bool) -> None:
    assert raises_ack_in_transaction(consumer.handle_message) is found
