"""A handle_batch: its signature, its answers, and one message of it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from django.db import InterfaceError, OperationalError

from nats_consumer import (
    Ack,
    DeadLetter,
    Drop,
    JetstreamPullConsumer,
    Message,
    Outcome,
    Retry,
    publish,
)
from nats_consumer.declare.batches import BatchCall, ForAll, Item, common_errors, plan_of_batch
from nats_consumer.declare.options import consumer_options
from nats_consumer.exceptions import ConfigurationError, InvalidPayload
from nats_consumer.testing import FakeMessage, Nats, adeliver, deliver


class Paid(msgspec.Struct):
    id: int


class Batched(JetstreamPullConsumer):
    """A base without a stream."""

    filter_subject = "orders.paid"
    max_batch = 10


def consumer(method: Any, **attributes: Any) -> Any:
    return type("Rows", (Batched,), {"handle_batch": method, **attributes})()


def items(call: BatchCall, *payloads: bytes) -> list[Item]:
    messages: list[Any] = [FakeMessage(each, subject="orders.paid") for each in payloads]
    return [call.item(message) for message in messages]


def named_messages(self: Any, messages: Any) -> Any: ...
def lone(self: Any, things: Any) -> Any: ...
def listed(self: Any, things: list[Message]) -> Any: ...
def sequence(self: Any, things: Sequence[Message]) -> Any: ...
def payloads(self: Any, orders: list[Paid]) -> Any: ...
def both(self: Any, orders: list[Paid], messages: list[Message]) -> Any: ...
def other_way(self: Any, messages: list[Message], orders: list[Paid]) -> Any: ...


@pytest.mark.parametrize(
    ("method", "order"),
    [
        (named_messages, [0]),
        (lone, [0]),
        (listed, [0]),
        (sequence, [0]),
        (payloads, [1]),
        (both, [1, 0]),
        (other_way, [0, 1]),
    ],
)
def test_the_signature_decides_what_each_list_holds(method: Any, order: list[int]) -> None:
    plan = plan_of_batch(consumer(method))
    assert (plan.order, plan.problems) == (order, [])


def not_a_list(self: Any, orders: Paid) -> Any: ...
def two(self: Any, orders: list[Paid], others: list[dict[str, Any]]) -> Any: ...
def unfilled(self: Any, messages: Any, things: Any) -> Any: ...
def nothing(self: Any) -> Any: ...


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        (not_a_list, "'orders' gets a list: annotate it with one, such as list[dict]"),
        (two, "both orders and others would get the payloads"),
        (unfilled, "the parameter 'things' gets no value"),
        (nothing, "it takes nothing. Write `def handle_batch(self, messages)`"),
    ],
)
def test_a_signature_that_cannot_be_filled_is_refused_with_the_remedy(
    method: Any, problem: str
) -> None:
    made = consumer(method)
    assert problem in " ".join(plan_of_batch(made).problems)
    with pytest.raises(ConfigurationError, match="handle_batch"):
        BatchCall(made)


def test_the_payloads_stand_beside_their_messages() -> None:
    seen: list[Any] = []

    def handle(self: Any, orders: list[Paid], messages: list[Message]) -> None:
        pairs = zip(orders, messages, strict=True)
        seen.extend((order.id, message.json()["id"]) for order, message in pairs)

    call = BatchCall(consumer(handle))
    assert call.handle(items(call, b'{"id": 1}', b'{"id": 2}')) == {}
    assert seen == [(1, 1), (2, 2)]
    with pytest.raises(InvalidPayload):
        items(call, b"{}")


def test_the_lists_may_be_given_by_their_names_only() -> None:
    seen: list[Any] = []

    def handle(self: Any, *, orders: list[Paid], messages: list[Message]) -> None:
        seen.extend((*orders, *[each.subject for each in messages]))

    call = BatchCall(consumer(handle))
    assert call.handle(items(call, b'{"id": 1}')) == {}
    assert seen == [Paid(1), "orders.paid"]


def test_a_dict_names_outcomes_and_errors() -> None:
    error = ValueError("no such shop")

    def handle(self: Any, messages: list[Any]) -> Any:
        return {messages[0]: Retry, messages[1]: error, messages[2]: None}

    call = BatchCall(consumer(handle))
    given = items(call, b"0", b"1", b"2", b"3")
    endings = call.handle(given)
    assert isinstance(endings[given[0].message], Retry)
    assert endings[given[1].message] is error
    assert endings[given[2].message] is None
    assert given[3].message not in endings


@pytest.mark.parametrize("answer", [True, ["x"], {"message": Ack()}])
def test_another_answer_is_a_type_error(answer: Any) -> None:
    call = BatchCall(consumer(lambda self, messages: answer))
    with pytest.raises(TypeError, match="handle_batch returned a"):
        call.handle(items(call, b"0"))


def test_a_wrong_ending_of_a_message_is_a_type_error() -> None:
    call = BatchCall(consumer(lambda self, messages: {messages[0]: "done"}))
    with pytest.raises(TypeError, match="Use an outcome such as Retry"):
        call.handle(items(call, b"0"))


@pytest.mark.parametrize("outcome", [Ack(), Drop("a test")])
def test_a_returned_outcome_that_keeps_the_work_is_that_of_all(outcome: Outcome) -> None:
    call = BatchCall(consumer(lambda self, messages: outcome))
    given = items(call, b"0", b"1")
    assert call.handle(given) == {item.message: outcome for item in given}


@pytest.mark.parametrize("outcome", [Retry(after=1), DeadLetter("no")])
def test_a_returned_outcome_that_undoes_the_work_is_raised_for_all(outcome: Outcome) -> None:
    call = BatchCall(consumer(lambda self, messages: outcome))
    with pytest.raises(ForAll) as raised:
        call.handle(items(call, b"0", b"1"))
    assert raised.value.outcome is outcome


@pytest.mark.parametrize("outcome", [Drop("a test"), DeadLetter("no"), Retry(), ValueError()])
def test_what_is_raised_in_company_is_nobodys_yet(outcome: Exception) -> None:
    def handle(self: Any, messages: list[Any]) -> Any:
        raise outcome

    call = BatchCall(consumer(handle))
    with pytest.raises(type(outcome)):
        call.handle(items(call, b"0", b"1"))


def test_a_drop_that_is_raised_alone_keeps_the_work() -> None:
    def handle(self: Any, messages: list[Any]) -> Any:
        raise Drop("a test")

    call = BatchCall(consumer(handle))
    given = items(call, b"0")
    assert isinstance(call.handle(given)[given[0].message], Drop)


def test_errors_of_the_surroundings_have_a_default() -> None:
    assert common_errors(consumer(lone)) == (OperationalError, InterfaceError, OSError)
    assert common_errors(consumer(lone, common_errors=KeyError)) == (KeyError,)
    with pytest.raises(ConfigurationError, match="a tuple of classes of exceptions, not 'x'"):
        common_errors(consumer(lone, common_errors="x"))


def test_the_options_have_the_limits_and_one_batch_at_once() -> None:
    options = consumer_options(consumer(lone, stream_name="orders"))
    assert (options.max_batch, options.max_batch_wait) == (10, 0.5)
    assert options.max_batch_bytes == 8 * 1024 * 1024
    assert options.concurrency == 1


def test_a_consumer_of_single_messages_has_no_batches() -> None:
    class Orders(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subject = "orders.>"
        max_batch = 10

        def handle_message(self, message: Any) -> None: ...

    assert consumer_options(Orders).max_batch is None


def test_deliver_calls_a_batch_of_one() -> None:
    class Rows(Batched):
        stream_name = "orders"

        def handle_batch(self, orders: list[Paid], messages: list[Message]) -> Any:
            if orders[0].id == 1:
                return {messages[0]: Retry(after=5)}
            if orders[0].id == 2:
                return DeadLetter("no such shop")
            if orders[0].id == 3:
                raise ValueError("3")
            return None

    assert isinstance(deliver(Rows, {"id": 0}), Ack)
    assert deliver(Rows, {"id": 1}).after == 5  # type: ignore[attr-defined]
    assert isinstance(deliver(Rows, {"id": 2}), DeadLetter)
    with pytest.raises(ValueError, match="3"):
        deliver(Rows, {"id": 3})
    with pytest.raises(InvalidPayload):
        deliver(Rows, {})


@pytest.mark.anyio
async def test_deliver_awaits_an_async_batch() -> None:
    class Rows(Batched):
        stream_name = "orders"

        async def handle_batch(self, messages: list[Message]) -> Any:
            await messages[0].nak(3)

    outcome = await adeliver(Rows, b"")
    assert isinstance(outcome, Retry)


@pytest.mark.parametrize("how", ["def", "async"])
def test_the_test_kit_delivers_again_what_a_batch_wants_again(how: str) -> None:
    seen: list[int] = []

    def handle(self: Any, orders: list[Paid], messages: list[Message]) -> Any:
        seen.extend(order.id for order in orders)
        return {messages[0]: Retry(after=60)} if messages[0].attempt == 1 else None

    async def ahandle(self: Any, orders: list[Paid], messages: list[Message]) -> Any:
        return handle(self, orders, messages)

    members = {"stream_name": "orders", "handle_batch": handle if how == "def" else ahandle}
    rows = type("Rows", (Batched,), members)
    with Nats([rows]).in_use() as nats:
        publish("orders.paid", {"id": 1})
        publish("orders.paid", b"{}")
        nats.run()
        assert seen == [1, 1]
        [letter] = nats.dead_letters(rows)
        assert letter.reason == "cannot be decoded"
