"""Scenarios of messages for later, and of messages with a time to live. They wait in real time on
the real server, all at once."""

from datetime import timedelta
from typing import Any

from nats_consumer import DeadLetter, Retry
from nats_consumer.exceptions import NatsConsumerError
from tests.live.support.scenarios import scenario
from tests.live.support.worlds import World

SOON = timedelta(seconds=1)
# The server looks for what is over once a second.
LONG_ENOUGH = 4.0


def room(world: World) -> dict[str, Any]:
    """The configuration of a stream that has a place for what waits."""
    subjects = [f"{world.stream}.>", f"_later.*.{world.stream}.>"]
    return {"subjects": subjects, "allow_msg_schedules": True, "allow_msg_ttl": True}


def reading(world: World) -> Any:
    """Note what a message says, and its headers."""

    def act(message: Any) -> None:
        headers = sorted((message.headers or {}).items())
        world.note("Orders", message, f"{message.data.decode()} {headers} {message.identity}")

    return act


@scenario
async def a_message_for_later_comes_after_those_of_now(world: World) -> None:
    await world.start(world.consumer(reading(world)), **room(world))
    await world.publish("created", "later", at=5 * SOON, headers={"Source": "shop"}, msg_id="7")
    await world.publish("created", "now")
    await world.run(calls=4)


@scenario
async def a_time_that_has_passed_means_at_once(world: World) -> None:
    await world.start(world.consumer(reading(world), how="async"), **room(world))
    await world.publish("created", "late", at=timedelta(days=-1))
    await world.run(calls=2)


@scenario
async def messages_for_later_come_in_the_order_of_their_times(world: World) -> None:
    await world.start(world.consumer(reading(world)), **room(world))
    await world.publish("created", "second", at=6 * SOON)
    await world.publish("created", "first", at=SOON)
    await world.run(calls=4)


@scenario
async def a_message_for_later_that_fails_is_retried(world: World) -> None:
    def act(message: Any) -> Any:
        return ValueError("no") if message.attempt < 3 else None

    await world.start(world.consumer(act), **room(world))
    await world.publish("created", "later", at=SOON)
    await world.run(calls=3)


@scenario
async def a_message_id_waits_once(world: World) -> None:
    await world.start(world.consumer(reading(world)), **room(world))
    for text, seconds in (("first", 5), ("second", 6)):
        ack = await world.publish("created", text, at=seconds * SOON, msg_id="order 7.>")
        world.ledger.notes.append(f"{ack.seq} {bool(ack.duplicate)}")
    await world.run(calls=2)


@scenario
async def a_message_id_beyond_the_window_replaces_what_waits(world: World) -> None:
    async def handle_message(self: Any, message: Any) -> Any:
        world.note("Orders", message, message.data.decode())
        if message.data == b"wait" and message.attempt == 1:
            return Retry(0.5)
        if message.data == b"wait":
            await world.publish("created", "second", at=SOON, msg_id="order-7")
        return None

    orders = world.consumer(handle_message=handle_message)
    await world.start(orders, **room(world), duplicate_window=0.2)
    await world.publish("created", "first", at=8 * SOON, msg_id="order-7")
    await world.publish("created", "wait")
    await world.run(calls=3)


@scenario
async def a_message_for_later_keeps_its_time_to_live(world: World) -> None:
    await world.start(world.consumer(reading(world)), **room(world))
    await world.publish("created", "later", at=SOON, ttl=60)
    await world.run(calls=2)


@scenario
async def the_time_to_live_of_a_message_for_later_begins_at_its_time(world: World) -> None:
    def act(message: Any) -> Any:
        return Retry(LONG_ENOUGH) if message.data == b"first" and message.attempt == 1 else None

    await world.start(world.consumer(act, max_ack_pending=1), **room(world))
    await world.publish("created", "first")
    await world.publish("created", "short", at=SOON, ttl=1)
    # The server may publish in any order what is due in one second.
    await world.publish("created", "long", at=3 * SOON, ttl=60)
    await world.run(calls=3)


@scenario
async def a_message_whose_time_to_live_ends_is_not_retried(world: World) -> None:
    def act(message: Any) -> Any:
        return Retry(LONG_ENOUGH) if message.attempt == 1 else None

    await world.start(world.consumer(act), **room(world))
    await world.publish("created", "short", ttl=1)
    await world.publish("created", "long", ttl=60)
    await world.run(calls=3)


@scenario
async def a_message_that_waited_longer_than_its_time_to_live_is_not_delivered(
    world: World,
) -> None:
    def act(message: Any) -> Any:
        return Retry(LONG_ENOUGH) if message.data == b"first" and message.attempt == 1 else None

    await world.start(world.consumer(act, how="async", max_ack_pending=1), **room(world))
    for text, ttl in (("first", 60), ("short", 1), ("kept", None)):
        await world.publish("created", text, ttl=ttl)
    await world.run(calls=3)


@scenario
async def an_age_ends_messages_before_their_time_to_live_and_after_it(world: World) -> None:
    def act(message: Any) -> Any:
        return Retry(LONG_ENOUGH) if message.attempt == 1 else None

    await world.start(world.consumer(act), **room(world), max_age=2.0)
    for text, ttl in (("long", 60), ("short", 1), ("none", None)):
        await world.publish("created", text, ttl=ttl)
    await world.run(calls=3)


@scenario
async def a_message_for_later_is_kept_and_replayed(world: World) -> None:
    is_mended: list[bool] = []

    def act(message: Any) -> Any:
        world.note("Orders", message, f"{sorted((message.headers or {}).items())}")
        return None if is_mended else DeadLetter("no card")

    orders = world.consumer(act)
    await world.start(orders, **room(world))
    await world.publish("created", "later", at=SOON, headers={"Source": "shop"}, msg_id="order-7")
    await world.run(calls=2)
    is_mended.append(True)
    await world.replay(orders)
    await world.run()


@scenario
async def a_message_that_waits_has_no_age(world: World) -> None:
    await world.start(world.consumer(reading(world)), **room(world), max_age=4.0)
    await world.publish("created", "later", at=5 * SOON)
    await world.run(calls=2)


async def refused(world: World, **fields: Any) -> None:
    """A stream that lacks something."""
    await world.start(world.consumer(), **fields)
    for times in ({"at": SOON}, {"ttl": 60}, {"at": SOON, "ttl": 60}):
        try:
            await world.publish("created", "later", **times)  # type: ignore[arg-type]
            world.ledger.notes.append("stored")
        except NatsConsumerError as error:
            world.ledger.notes.append(f"{type(error).__name__} {getattr(error, 'err_code', '')}")
    await world.publish("created", "now")
    await world.run()


@scenario
async def a_stream_that_allows_neither_refuses_them(world: World) -> None:
    await refused(world)


@scenario
async def a_stream_without_a_place_refuses_what_is_for_later(world: World) -> None:
    await refused(world, allow_msg_schedules=True, allow_msg_ttl=True)


@scenario
async def a_stream_without_times_to_live_has_nothing_for_later(world: World) -> None:
    await refused(world, **{**room(world), "allow_msg_ttl": False})
