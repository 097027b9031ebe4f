"""Scenarios of messages, told once for the test kit's model and for a real server."""

import asyncio
from collections.abc import Awaitable, Callable
from threading import Event
from typing import Any

import msgspec

from nats_consumer import (
    Ack,
    ConsumerHandler,
    DeadLetter,
    Drop,
    ErrorAckBehavior,
    JetstreamPushConsumer,
    Message,
    Retry,
    handle,
)
from nats_consumer.exceptions import MessageRefused
from tests.live.support.worlds import World

Scenario = Callable[[World], Awaitable[None]]

SCENARIOS: dict[str, Scenario] = {}


def scenario(story: Scenario) -> Scenario:
    """Put it into the table."""
    SCENARIOS[story.__name__] = story
    return story


class Paid(msgspec.Struct):
    """A payload."""

    number: int


def failing(times: int, error: Callable[[], BaseException] = lambda: ValueError("no")) -> Any:
    """Fail the first attempts."""
    return lambda message: error() if message.attempt <= times else None


def always(answer: Callable[[], object]) -> Any:
    """Give the same answer at each attempt."""
    return lambda message: answer()


def returned(outcome: Any) -> Any:
    """An outcome that is returned, not raised."""
    outcome.is_returned = True
    return outcome


def noting(world: World, then: Callable[[Any], Any] = lambda message: None) -> Any:
    """A handle_error that notes its call."""

    def handle_error(self: Any, message: Any, error: Exception, attempt: int) -> Any:
        world.note(type(self).__name__, message, f"handle_error {type(error).__name__} {attempt}")
        return then(message)

    return handle_error


def raising(error: BaseException) -> Any:
    """A function of a message that raises."""

    def fail(message: Any) -> None:
        raise error

    return fail


async def one_message(world: World, act: Any, **attributes: Any) -> None:
    """One message, one consumer."""
    pending, calls = attributes.pop("pending", 0), attributes.pop("calls", 0)
    await world.start(world.consumer(act, **attributes))
    await world.publish("created", {"number": 7}, headers={"Source": "shop"})
    await world.run(pending, calls)


def of_one(name: str, act: Callable[[World], Any], **attributes: Any) -> None:
    """Put a scenario of one message into the table, for a `def` and an `async def` handler.
    Attributes that are called with the world are functions."""

    for how in ("def", "async"):

        async def story(world: World, how: str = how) -> None:
            made = {
                key: value(world) if key == "handle_error" else value
                for key, value in attributes.items()
            }
            await one_message(world, act(world), how=how, **made)

        SCENARIOS[f"{name}_{how}"] = story


KEPT = {"handle_error_ack_behavior": ErrorAckBehavior.DEAD_LETTER}
NO_RETRY = {"max_retries": 0}

of_one("a_return_acknowledges", lambda world: lambda message: None)
of_one("an_ack_is_returned", lambda world: always(lambda: returned(Ack())))
of_one("an_ack_is_raised", lambda world: always(Ack))
of_one("the_handler_acknowledges", lambda world: lambda message: message.ack() and None)
of_one("two_failures_then_success", lambda world: failing(2))
of_one("exhausted_is_kept", lambda world: always(lambda: ValueError("no")), max_retries=2, **KEPT)
of_one(
    "exhausted_is_dropped",
    lambda world: always(lambda: ValueError("no")),
    max_retries=1,
    handle_error_ack_behavior=ErrorAckBehavior.TERM,
    handle_error=noting,
)
of_one(
    "exhausted_is_acknowledged",
    lambda world: always(lambda: ValueError("no")),
    max_retries=1,
    handle_error_ack_behavior=ErrorAckBehavior.ACK,
    handle_error=noting,
)
of_one(
    "exhausted_comes_again_later",
    lambda world: always(lambda: ValueError("no")),
    max_retries=1,
    max_retry_delay=3600.0,
    handle_error=noting,
    pending=1,
    calls=3,
)
of_one(
    "no_retries_at_all",
    lambda world: always(lambda: ValueError("no")),
    **NO_RETRY,
    **KEPT,
    handle_error=noting,
)
of_one(
    "handle_error_settles",
    lambda world: always(lambda: ValueError("no")),
    **NO_RETRY,
    handle_error_ack_behavior=ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR,
    handle_error=lambda world: noting(world, lambda message: message.term("seen") and None),
)
of_one(
    "handle_error_settles_nothing",
    lambda world: always(lambda: ValueError("no")),
    **NO_RETRY,
    handle_error_ack_behavior=ErrorAckBehavior.IMPLEMENTED_BY_HANDLE_ERROR,
    max_retry_delay=3600.0,
    handle_error=noting,
    pending=1,
    calls=2,
)
of_one(
    "handle_error_returns_an_outcome",
    lambda world: always(lambda: ValueError("no")),
    **NO_RETRY,
    handle_error=lambda world: noting(world, lambda message: DeadLetter("by handle_error")),
)
of_one(
    "handle_error_raises_an_outcome",
    lambda world: always(lambda: ValueError("no")),
    **NO_RETRY,
    handle_error=lambda world: noting(world, raising(Drop("by handle_error"))),
)
of_one(
    "handle_error_fails_and_the_message_is_kept",
    lambda world: always(lambda: ValueError("no")),
    **NO_RETRY,
    **KEPT,
    handle_error=lambda world: noting(world, raising(KeyError("broken"))),
)
of_one(
    "handle_error_fails_until_it_is_given_up",
    lambda world: always(lambda: ValueError("no")),
    **NO_RETRY,
    handle_error_ack_behavior=ErrorAckBehavior.ACK,
    handle_error=lambda world: noting(world, raising(KeyError("broken"))),
)
of_one(
    "a_retry_is_returned_with_a_delay",
    lambda world: lambda message: returned(Retry(0.1)) if message.attempt == 1 else None,
)
of_one("a_retry_is_raised_with_a_delay", lambda world: failing(1, lambda: Retry(0.1)))
of_one("a_retry_takes_the_delay_of_the_policy", lambda world: failing(1, Retry))
of_one(
    "a_class_stands_for_an_outcome",
    lambda world: lambda message: Retry if message.attempt == 1 else Ack,
)
of_one(
    "asked_again_beyond_the_limit", lambda world: always(lambda: Retry(0.01)), max_retries=1, **KEPT
)
of_one("a_dead_letter_is_returned", lambda world: always(lambda: returned(DeadLetter("no card"))))
of_one(
    "a_dead_letter_is_in_an_exception_group",
    lambda world: always(
        lambda: ExceptionGroup("several", [ValueError("no"), DeadLetter("no card")])
    ),
)
of_one("a_drop_is_raised", lambda world: always(lambda: Drop("a test order")))
of_one(
    "the_handler_hands_back",
    lambda world: lambda message: message.nak() and None if message.attempt < 3 else None,
    # Not the delay of the policy.
    initial_retry_delay=60.0,
    max_retry_delay=60.0,
)
of_one(
    "the_handler_hands_back_with_a_delay",
    lambda world: lambda message: message.nak(0.1) and None if message.attempt == 1 else None,
)
of_one("the_handler_ends_it", lambda world: lambda message: message.term("old") and None)
of_one("settled_before_it_failed", lambda world: lambda message: message.ack() and ValueError("no"))
of_one(
    "delays_by_name",
    lambda world: always(lambda: ValueError("no")),
    max_deliver=4,
    backoff_delays=[0.02, 0.06, 0.04],
    **KEPT,
)
of_one("a_constant_delay", lambda world: failing(3), backoff_factor=1.0, initial_retry_delay=0.03)
of_one("unfinished_work", lambda world: lambda message: iter_once(), **NO_RETRY, **KEPT)
of_one("push", lambda world: failing(1), base=JetstreamPushConsumer)


def iter_once() -> Any:
    """A generator, which nobody runs."""
    yield 1


@scenario
async def a_handler_outlasts_its_timeout_async(world: World) -> None:
    await one_message(
        world,
        lambda message: asyncio.Event().wait(),
        how="async",
        handler_timeout=0.05,
        max_retries=1,
        **KEPT,
    )


@scenario
async def a_handler_outlasts_its_timeout_def(world: World) -> None:
    # Far longer than the limit: the timer of a busy machine is late.
    await one_message(
        world,
        lambda message: Event().wait(0.5) and None,
        handler_timeout=0.05,
        **NO_RETRY,
        **KEPT,
    )


@scenario
async def a_filter_takes_its_subjects_only(world: World) -> None:
    await world.start(
        world.consumer(filters=["created"], name="Created"),
        world.consumer(filters=["*.paid.eu", "sent.*"], name="Others", how="async"),
    )
    for subject in ("created", "7.paid.eu", "sent.a", "sent.a.b", "7.paid", "sent", "7.created"):
        await world.publish(subject)
    await world.run()


@scenario
async def two_consumers_have_their_own_attempts(world: World) -> None:
    await world.start(
        world.consumer(failing(2), name="Slow"), world.consumer(name="Quick", how="async")
    )
    await world.publish("created")
    await world.run()


@scenario
async def a_failing_message_is_passed_by_others(world: World) -> None:
    def act(message: Any) -> Any:
        return ValueError("no") if message.data == b"1" and message.attempt < 3 else None

    await world.start(world.consumer(act, initial_retry_delay=0.05))
    for number in range(1, 6):
        await world.publish("created", str(number))
    await world.run()


@scenario
async def order_holds_up_what_is_behind_a_failing_message(world: World) -> None:
    def act(message: Any) -> Any:
        return ValueError("no") if message.data == b"2" and message.attempt < 3 else None

    await world.start(world.consumer(act, ordered=True, **KEPT))
    for number in range(1, 5):
        await world.publish("created", str(number))
    await world.run()
    world.ledger.notes = [f"message {number}" for _, number in world.ledger.order]


@scenario
async def order_goes_on_behind_a_dead_letter(world: World) -> None:
    def act(message: Any) -> Any:
        return ValueError("no") if message.data == b"2" else None

    await world.start(world.consumer(act, how="async", ordered=True, max_retries=1, **KEPT))
    for number in range(1, 5):
        await world.publish("created", str(number))
    await world.run()
    world.ledger.notes = [f"message {number}" for _, number in world.ledger.order]


@scenario
async def one_unsettled_message_at_a_time(world: World) -> None:
    await world.start(world.consumer(failing(1), how="async", max_ack_pending=1))
    for number in range(1, 4):
        await world.publish("created", str(number))
    await world.run()
    world.ledger.notes = [f"message {number}" for _, number in world.ledger.order]


@scenario
async def a_message_id_is_stored_once(world: World) -> None:
    await world.start(world.consumer())
    acks = [await world.publish("created", msg_id=each) for each in ("a", "b", "a", "a")]
    world.ledger.notes = [f"{ack.seq} {bool(ack.duplicate)}" for ack in acks]
    await world.run()


@scenario
async def one_message_id_on_two_subjects_is_stored_once(world: World) -> None:
    await world.start(world.consumer())
    await world.publish("created", b"first", msg_id="order-7")
    await world.publish("paid", b"second", msg_id="order-7")
    await world.run()


@scenario
async def a_template_fills_arguments(world: World) -> None:
    def handle_message(self: Any, number: int, message: Message) -> None:
        world.note("Orders", message, f"number {number!r}")

    await world.start(
        world.consumer(
            filter_subjects=[world.subject("{number}.paid")], handle_message=handle_message
        )
    )
    await world.publish("7.paid")
    await world.publish("8.paid")
    await world.run()


async def typed(
    world: World,
    how: str,
    *payloads: bytes,
    subject: str = "7.paid",
    pending: int = 0,
    **attributes: Any,
) -> None:
    """A typed handler gets these payloads."""

    def handle_message(self: Any, paid: Paid, number: int, message: Message) -> None:
        world.note("Orders", message, f"{paid!r} {number!r} attempt {message.attempt}")

    async def ahandle_message(self: Any, paid: Paid, number: int, message: Message) -> None:
        handle_message(self, paid, number, message)

    method = ahandle_message if how == "async" else handle_message
    await world.start(
        world.consumer(
            filter_subjects=[world.subject("{number}.paid")], handle_message=method, **attributes
        )
    )
    for payload in payloads:
        await world.publish(subject, payload)
    await world.run(pending)


@scenario
async def a_typed_payload_is_decoded(world: World) -> None:
    await typed(world, "def", b'{"number": 7}', b'{"number": 8}')


@scenario
async def an_undecodable_payload_is_a_dead_letter_at_once(world: World) -> None:
    await typed(
        world, "async", b'{"number": []}', b"?", b'{"number": 8}', handle_error=noting(world)
    )


@scenario
async def an_undecodable_payload_is_dropped(world: World) -> None:
    await typed(world, "def", b"?", invalid_ack_behavior=ErrorAckBehavior.TERM)


@scenario
async def an_undecodable_payload_is_acknowledged(world: World) -> None:
    await typed(world, "async", b"?", invalid_ack_behavior=ErrorAckBehavior.ACK)


@scenario
async def an_undecodable_payload_is_tried_until_it_is_given_up(world: World) -> None:
    await typed(
        world,
        "def",
        b"?",
        invalid_ack_behavior=ErrorAckBehavior.NAK,
        max_retries=1,
        handle_error=noting(world),
        **KEPT,
    )


@scenario
async def a_token_that_does_not_convert_is_a_dead_letter(world: World) -> None:
    await typed(world, "def", b'{"number": 7}', subject="seven.paid")


@scenario
async def a_handler_publishes_for_another_consumer(world: World) -> None:
    async def created(self: Any, message: Any) -> None:
        world.note("Created", message, f"attempt {message.attempt}")
        await world.publish("invoiced", message.data, msg_id=f"invoice-{message.data.decode()}")
        if message.attempt == 1:
            raise ValueError("after publishing")

    await world.start(
        world.consumer(filters=["created"], name="Created", handle_message=created),
        world.consumer(filters=["invoiced"], name="Invoiced"),
    )
    await world.publish("created", "7")
    await world.run()


@scenario
async def a_replayed_dead_letter_is_handled(world: World) -> None:
    is_mended: list[bool] = []
    orders = world.consumer(lambda message: None if is_mended else DeadLetter("no card"))
    await world.start(orders)
    await world.publish("created", "7", headers={"Source": "shop"}, msg_id="order-7")
    # Or their letters may be stored, and replayed, in the other order.
    await world.run()
    await world.publish("created", "8")
    await world.run()
    is_mended.append(True)
    await world.replay(orders)
    await world.run()


@scenario
async def a_replayed_dead_letter_fails_again(world: World) -> None:
    orders = world.consumer(lambda message: ValueError("no"), **NO_RETRY, **KEPT)
    await world.start(orders)
    await world.publish("created", "7", msg_id="order-7")
    await world.run()
    await world.replay(orders)
    await world.run()
    await world.replay(orders)
    await world.run()


@scenario
async def an_identity_survives_a_replay(world: World) -> None:
    def act(message: Any) -> Any:
        world.note("Orders", message, f"identity {message.identity}")
        return DeadLetter("again")

    orders = world.consumer(act)
    await world.start(orders)
    await world.publish("created", "7", msg_id="order-7")
    await world.run()
    await world.publish("created", "8")
    await world.run()
    await world.replay(orders)
    await world.run()


@scenario
async def a_handler_class_routes_by_subject(world: World) -> None:
    class Handler(ConsumerHandler):
        @handle(world.subject("created"))
        def created(self, message: Any) -> None:
            world.note("Orders", message, "created")

        @handle(world.subject("*.paid"), world.subject("{number}.sent"))
        async def moved(self, message: Any) -> Any:
            world.note("Orders", message, "moved")

        async def fallback_handle(self, msg: Any, reason: str = "unknown") -> None:
            world.note("Orders", msg, f"fallback {reason}")
            await msg.term(reason)

    handler = Handler()
    await world.start(world.consumer(handle_message=lambda self, message: handler.handle(message)))
    for subject in ("created", "7.paid", "7.sent", "lost"):
        await world.publish(subject)
    await world.run()


@scenario
async def a_handler_keeps_a_copy_itself(world: World) -> None:
    handler = ConsumerHandler(["any"])

    async def handle_message(self: Any, message: Any) -> None:
        await handler.send_to_dlq(message, "looked odd")
        world.note("Orders", message, "kept")

    await world.start(world.consumer(handle_message=handle_message))
    await world.publish("created", b"odd", headers={"Source": "shop"})
    await world.run()


@scenario
async def a_handler_sees_what_the_server_knows_of_the_message(world: World) -> None:
    def act(message: Any) -> Any:
        place = message.metadata
        world.note(
            "Orders",
            message,
            f"{message.subject} {message.headers} {message.json()} {place.stream} "
            f"{place.consumer} {place.num_delivered} {message.is_acked}",
        )
        return ValueError("no") if message.attempt == 1 else None

    await one_message(world, act)


async def lost_worker(world: World, act: Any, **attributes: Any) -> None:
    """A worker dies with the first attempt at a message."""
    orders = world.consumer(act, ack_wait=0.5, handle_error=noting(world), **attributes)
    await world.start(orders)
    await world.pause()
    await world.publish("created", "7")
    await world.die(orders)
    await world.resume()
    await world.run()


@scenario
async def a_message_comes_again_when_its_worker_is_lost(world: World) -> None:
    await lost_worker(world, lambda message: None)


@scenario
async def a_lost_worker_counts_as_an_attempt(world: World) -> None:
    await lost_worker(world, always(lambda: ValueError("no")), how="async", max_retries=1, **KEPT)


@scenario
async def a_worker_lost_with_the_last_attempt_leaves_one_more_run(world: World) -> None:
    await lost_worker(world, lambda message: None, **NO_RETRY, **KEPT)


@scenario
async def a_run_beyond_the_last_attempt_that_fails_is_the_end(world: World) -> None:
    await lost_worker(world, always(lambda: ValueError("no")), **NO_RETRY, **KEPT)


@scenario
async def a_limit_for_each_subject_keeps_the_newest(world: World) -> None:
    await world.start(world.consumer(), max_msgs_per_subject=1)
    await world.pause()
    for number in range(1, 4):
        await world.publish("created", str(number))
    await world.resume()
    await world.run()


@scenario
async def a_limit_of_messages_keeps_the_newest(world: World) -> None:
    await world.start(world.consumer(), max_msgs=2)
    await world.pause()
    for number in range(1, 5):
        await world.publish(f"created.{number}", str(number))
    await world.resume()
    await world.run()


@scenario
async def a_work_queue_holds_what_is_not_done(world: World) -> None:
    await world.start(world.consumer(failing(1)), retention="workqueue")
    for number in range(1, 4):
        await world.publish("created", str(number))
    await world.run()


@scenario
async def a_durable_begins_where_it_is_told_to(world: World) -> None:
    await world.start(world.consumer(deliver_policy="by_start_sequence", start_sequence=3))
    for number in range(1, 5):
        await world.publish("created", str(number))
    await world.run()


async def batch(world: World, act: Any, *, how: str = "def", **attributes: Any) -> None:
    """Four messages, which are one batch; each is noted with the size of its call."""

    def handle_batch(self: Any, messages: list[Message]) -> Any:
        sizes = attributes.get("common_errors") is None
        for each in messages:
            of = f" in a call of {len(messages)}" if sizes else ""
            world.note("Orders", each, f"attempt {each.attempt}{of}")
        answer = act(messages)
        if isinstance(answer, BaseException) and not hasattr(answer, "is_returned"):
            raise answer
        return answer

    async def ahandle_batch(self: Any, messages: list[Message]) -> Any:
        return handle_batch(self, messages)

    members = {"handle_batch": ahandle_batch if how == "async" else handle_batch, **attributes}
    orders = world.consumer(max_batch=4, max_batch_wait=5.0, **members)
    await world.start(orders)
    await world.pause()
    for number in range(1, 5):
        await world.publish("created", str(number))
    await world.resume()
    await world.run()


def guilty(*numbers: bytes) -> Any:
    """Fail where one of these messages is in the batch."""
    return lambda messages: (
        ValueError("no") if any(each.data in numbers for each in messages) else None
    )


def of_a_batch(name: str, act: Any, **attributes: Any) -> None:
    """Put a scenario of one batch into the table, for a `def` and an `async def` handler."""
    for how in ("def", "async"):

        async def story(world: World, how: str = how) -> None:
            made = {
                key: value(world) if key == "handle_error" else value
                for key, value in attributes.items()
            }
            await batch(world, act, how=how, **made)

        SCENARIOS[f"{name}_{how}"] = story


of_a_batch("a_batch_is_one_call", lambda messages: None)
of_a_batch("a_batch_is_split_to_the_guilty_message", guilty(b"3"), **NO_RETRY, **KEPT)
of_a_batch(
    "a_batch_is_split_to_all_guilty_messages",
    guilty(b"1", b"4"),
    **NO_RETRY,
    **KEPT,
    handle_error=noting,
)
of_a_batch(
    "a_batch_has_an_outcome_for_each_message",
    lambda messages: {
        messages[0]: DeadLetter("no card"),
        messages[2]: Drop("a test order"),
        messages[3]: ValueError("no"),
    },
    **NO_RETRY,
    **KEPT,
)
of_a_batch("a_batch_is_given_up_as_a_whole", lambda messages: returned(DeadLetter("no shop")))
of_a_batch(
    "an_error_of_the_surroundings_is_nobodys",
    lambda messages: OSError("away") if messages[0].attempt == 1 else None,
    common_errors=(OSError,),
    **NO_RETRY,
    **KEPT,
)


@scenario
async def an_undecodable_payload_is_not_in_the_batch(world: World) -> None:
    def handle_batch(self: Any, paid: list[Paid], messages: list[Message]) -> None:
        for each, message in zip(paid, messages, strict=True):
            world.note("Orders", message, f"{each!r} in a call of {len(messages)}")

    orders = world.consumer(max_batch=3, max_batch_wait=5.0, handle_batch=handle_batch)
    await world.start(orders)
    await world.pause()
    for payload in (b'{"number": 1}', b"?", b'{"number": 3}'):
        await world.publish("paid", payload)
    await world.resume()
    await world.run()


@scenario
async def a_message_larger_than_the_stream_takes_is_refused(world: World) -> None:
    await world.start(world.consumer(), max_msg_size=100)
    for size, headers in ((100, None), (101, None), (70, {"A": "b"}), (90, {"A": "b"})):
        try:
            await world.publish("created", b"x" * size, headers=headers)
            world.ledger.notes.append("stored")
        except MessageRefused as error:
            world.ledger.notes.append(f"refused {error.err_code}")
    await world.run()
