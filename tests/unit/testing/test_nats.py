"""nats_consumer.testing.Nats: messages run through consumers without a server and without time."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from nats_consumer import (
    Ack,
    ConsumerHandler,
    DeadLetter,
    ErrorAckBehavior,
    JetstreamPullConsumer,
    Retry,
    apublish,
    operations,
    publish,
    publish_many,
    publish_on_commit,
)
from nats_consumer.api import StreamConfig
from nats_consumer.contrib.outbox.models import OutboxMessage
from nats_consumer.exceptions import (
    ConfigurationError,
    MessageRefused,
    NoResponders,
    NoStreamResponse,
    NotAllStored,
    Unreachable,
)
from nats_consumer.publish import request
from nats_consumer.testing import Nats, NotModelled
from tests.project.orders.models import Receipt

CREATED = "orders.created"


def consumer(act: Any = None, **attributes: Any) -> type[JetstreamPullConsumer]:
    """A consumer of orders.created: an exception that `act` returns is raised."""

    def handle_message(self: Any, message: Any) -> Any:
        answer = act(message) if act else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    members = {"stream_name": "orders", "filter_subject": CREATED, "handle_message": handle_message}
    return type("Orders", (JetstreamPullConsumer,), members | attributes)


def failing(**attributes: Any) -> type[JetstreamPullConsumer]:
    return consumer(lambda message: ValueError("no"), **attributes)


def keeping(**attributes: Any) -> type[JetstreamPullConsumer]:
    return failing(handle_error_ack_behavior=ErrorAckBehavior.DEAD_LETTER, **attributes)


@pytest.fixture
def outbox() -> None:
    """The outbox is in use: tests are without it unless they ask for this."""


def test_a_thousand_retries_with_a_backoff_of_up_to_an_hour_take_less_than_a_second() -> None:
    orders = keeping(max_retries=1000, max_retry_delay=3600.0)
    began = time.process_time()  # others use the machine too
    with Nats([orders]).in_use() as nats:
        publish(CREATED, {"number": 7})
        nats.run()
    took = time.process_time() - began
    assert len(nats.attempts) == 1001
    # 1 s + 2 s + ... + 2,048 s, and an hour for each of the others.
    assert nats.waited // timedelta(seconds=1) == 2**12 - 1 + 988 * 3600
    assert took < 1


def test_a_message_takes_as_long_however_many_there_are() -> None:
    def seconds(count: int) -> float:
        with Nats([consumer()]).in_use() as nats:
            publish_many([(CREATED, b"")] * count)
            began = time.process_time()
            nats.run()
            assert len(nats.attempts) == count
            return time.process_time() - began

    # Eight times as long would be right, and 64 times if each looked at all of them.
    assert seconds(2000) < 24 * seconds(250)


def test_a_message_for_later_is_handled_at_its_time() -> None:
    orders = consumer()
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"later", at=timedelta(days=3), ttl=60, headers={"Trace": "abc"})
        publish(CREATED, b"now")
        nats.advance(timedelta(days=2))
        assert [each.message.data for each in nats.attempts] == [b"now"]
        assert [each.data for each in nats.messages("_later.>")] == [b"later"]
        nats.run()
    assert [each.message.data for each in nats.attempts] == [b"now", b"later"]
    assert timedelta(days=2.9) < nats.waited <= timedelta(days=3)
    assert nats.attempts[1].message.headers == {
        "Trace": "abc",
        "Nats-TTL": "60s",
        "Nats-Scheduler": "_later.1.orders.created",
        "Nats-Schedule-Next": "purge",
    }
    assert nats.messages("_later.>") == []


def test_a_message_for_later_with_the_same_id_waits_once() -> None:
    orders = consumer()
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"1", at=timedelta(hours=1), msg_id="order 7.paid")
        assert publish(CREATED, b"2", at=timedelta(hours=2), msg_id="order 7.paid").duplicate
        nats.advance(300)
        assert not publish(CREATED, b"3", at=timedelta(hours=2), msg_id="order 7.paid").duplicate
        [waiting] = nats.messages("_later.>")
        assert waiting.subject == f"_later.order%207%2Epaid.{CREATED}"
        nats.run()
    assert [each.message.data for each in nats.attempts] == [b"3"]


def test_a_message_is_gone_after_its_time_to_live() -> None:
    orders = consumer()
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"short", ttl=60)
        publish(CREATED, b"long", ttl=timedelta(hours=1))
        assert [each.data for each in nats.messages()] == [b"short", b"long"]
        nats._now += 61 * 10**9
        nats.run()
    assert [each.message.data for each in nats.attempts] == [b"long"]


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (StreamConfig(name="orders", subjects=["orders.>"]), NoStreamResponse),
        (StreamConfig(name="orders", subjects=["orders.>", "_later.*.orders.>"]), MessageRefused),
    ],
)
def test_a_stream_that_keeps_nothing_for_later_refuses_it(
    config: StreamConfig, error: type[Exception]
) -> None:
    with Nats([], [config]).in_use(), pytest.raises(error):
        publish(CREATED, b"", at=timedelta(hours=1))


def test_a_message_that_always_fails_is_tried_until_it_is_kept() -> None:
    orders = keeping()
    with Nats([orders]).in_use() as nats:
        publish(CREATED, {"number": 7})
        nats.run()
    assert [each.number for each in nats.attempts] == [1, 2, 3, 4]
    assert [each.outcome for each in nats.attempts[:2]] == [Retry(1.0), Retry(2.0)]
    [letter] = nats.dead_letters(orders)
    assert (letter.reason, letter.deliveries) == ("attempts exhausted", 4)
    assert nats.pending(orders) == []


def test_a_message_that_comes_again_without_end_waits_for_advance() -> None:
    orders = failing(max_retries=1)
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"")
        nats.run()
        assert (len(nats.attempts), len(nats.pending(orders))) == (2, 1)
        nats.advance(59)
        assert len(nats.attempts) == 2
        nats.advance(timedelta(seconds=121))
        assert len(nats.attempts) == 5


@pytest.mark.parametrize("seconds", [-1, timedelta(seconds=-1), float("nan"), float("inf")])
def test_the_time_goes_on_only(seconds: Any) -> None:
    with Nats([consumer()]).in_use() as nats:
        with pytest.raises(ValueError, match="Time can only move forward"):
            nats.advance(seconds)
        assert nats.waited == timedelta(0)


def test_consumers_that_share_a_durable_do_not_run_as_in_a_worker() -> None:
    other = type("Other", (consumer(),), {"durable_name": consumer().__name__})
    with pytest.raises(ConfigurationError, match="Other"):
        Nats([consumer(), other])


@pytest.mark.parametrize("how", ["run", "advance", "deliver_one"])
def test_a_handler_cannot_have_messages_delivered(how: str) -> None:
    errors: list[Exception] = []

    def handle_message(self: Any, message: Any) -> None:
        deliver = {"run": nats.run, "advance": lambda: nats.advance(60)}
        try:
            deliver.get(how, lambda: nats.deliver_one(orders))()
        except (RuntimeError, LookupError) as error:
            errors.append(error)

    orders = consumer(handle_message=handle_message)
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"")
        publish(CREATED, b"")
        nats.run()
    assert [str(each) for each in errors] == [
        "A handler cannot call run(), advance() or deliver_one()."
    ] * 2


@pytest.mark.parametrize("how", ["def", "async def"])
def test_a_handler_that_calls_exit_has_failed_as_in_a_worker(how: str) -> None:
    def handle_message(self: Any, message: Any) -> None:
        if message.attempt == 1:
            raise SystemExit(3)

    async def ahandle_message(self: Any, message: Any) -> None:
        handle_message(self, message)

    orders = consumer(handle_message=handle_message if how == "def" else ahandle_message)
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"")
        nats.run()
    assert [type(each.error) for each in nats.attempts] == [SystemExit, type(None)]


def test_ctrl_c_in_a_handler_ends_the_test() -> None:
    def handle_message(self: Any, message: Any) -> None:
        raise KeyboardInterrupt

    with Nats([consumer(handle_message=handle_message)]).in_use() as nats:
        publish(CREATED, b"")
        with pytest.raises(KeyboardInterrupt):
            nats.run()


def test_no_negative_number_of_acknowledgements_is_lost() -> None:
    orders = consumer()
    with Nats([orders]).in_use() as nats, pytest.raises(ValueError, match="No -1"):
        nats.drop_acks(orders, -1)


def test_advance_delivers_what_is_due_until_then() -> None:
    orders = failing()
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"")
        began = nats.now
        nats.advance(2.9)
        assert len(nats.attempts) == 2
        nats.advance(0.1)
        assert len(nats.attempts) == 3
    assert nats.now - began == timedelta(seconds=3)


def test_a_lost_worker_gives_its_message_back_after_ack_wait() -> None:
    orders = consumer(ack_wait=30.0)
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"")
        lost = nats.deliver_one(orders, die=True)
        assert (lost.number, lost.outcome) == (1, None)
        nats.advance(29)
        assert len(nats.attempts) == 1
        nats.advance(1)
    assert [(each.number, each.outcome) for each in nats.attempts] == [(1, None), (2, Ack())]


def test_a_worker_that_is_lost_beyond_the_last_attempt_is_not_modelled() -> None:
    orders = keeping(max_retries=0)
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"")
        nats.deliver_one(orders, die=True)
        nats.advance(29.9)
        nats._now += 100_000_000
        nats.deliver_one(orders, die=True)
        with pytest.raises(NotModelled, match="lost again with its worker"):
            nats.advance(30)


def test_a_lost_acknowledgement_brings_the_message_again() -> None:
    orders = consumer()
    with Nats([orders]).in_use() as nats:
        nats.drop_acks(orders)
        publish(CREATED, b"")
        nats.run()
    assert [each.number for each in nats.attempts] == [1, 2]
    assert nats.waited == timedelta(seconds=30)


def test_a_redelivered_message_is_handled_again_at_its_next_attempt() -> None:
    orders = consumer()
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"")
        nats.run()
        nats.redeliver(orders)
        nats.run()
    assert [each.number for each in nats.attempts] == [1, 2]


def test_a_server_that_is_down_takes_and_delivers_nothing() -> None:
    orders = consumer()
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"")
        with nats.down():
            with pytest.raises(Unreachable):
                publish(CREATED, b"")
            with pytest.raises(NotAllStored):
                publish_many([(CREATED, b"")])
            nats.run()
            assert nats.attempts == []
        nats.run()
    assert len(nats.attempts) == 1


def test_a_message_id_is_forgotten_after_the_duplicate_window() -> None:
    stream = StreamConfig(name="orders", subjects=["orders.>"], duplicate_window=60.0)
    with Nats([consumer()], [stream]).in_use() as nats:
        publish(CREATED, b"", msg_id="7")
        nats.advance(59)
        assert publish(CREATED, b"", msg_id="7").duplicate
        nats.advance(1)
        assert not publish(CREATED, b"", msg_id="7").duplicate
        nats.run()
    assert len(nats.attempts) == 2


def test_what_no_consumer_reads_is_noted_as_published() -> None:
    with Nats([consumer()]).in_use() as nats:
        publish("invoices.wanted", {"number": 7})
    assert [each.subject for each in nats.published] == ["invoices.wanted"]
    assert nats.messages() == []


def test_what_no_given_stream_takes_is_refused() -> None:
    stream = StreamConfig(name="orders", subjects=["orders.>"])
    with Nats([consumer()], [stream]).in_use() as nats:
        with pytest.raises(NoStreamResponse):
            publish("invoices.wanted", b"")
        publish("orders.paid", b"")
        assert [each.subject for each in nats.messages("orders.*")] == ["orders.paid"]


def test_a_consumer_needs_its_stream_among_the_given_ones() -> None:
    with pytest.raises(ConfigurationError, match="the stream orders, which is not among"):
        Nats([consumer()], [StreamConfig(name="bills", subjects=["bills.>"])])


def test_a_stream_has_the_subjects_that_setup_gives_it() -> None:
    async def setup(self: Any) -> Any:
        return operations.CreateStream(name="orders", subjects=["orders.>"], duplicate_window=1.0)

    with Nats([consumer(setup=setup)]).in_use() as nats:
        assert publish("orders.paid", b"").stream == "orders"
        nats.run()
    assert nats.attempts == []


@pytest.mark.parametrize(
    "fields",
    [{"retention": "interest"}, {"discard": "new", "max_msgs": 5}, {"mirror": {"name": "other"}}],
)
def test_what_there_is_no_model_of_is_said(fields: dict[str, Any]) -> None:
    with pytest.raises(NotModelled, match="has no model of"):
        Nats([consumer()], [StreamConfig(name="orders", subjects=["orders.>"], **fields)])


def test_a_header_that_makes_a_server_act_is_not_modelled() -> None:
    with Nats([consumer()]).in_use(), pytest.raises(NotModelled, match="Nats-Rollup"):
        publish(CREATED, b"", headers={"Nats-Rollup": "all"})


def test_limits_of_a_stream_remove_its_oldest_messages() -> None:
    stream = StreamConfig(
        name="orders", subjects=["orders.>"], max_msgs=3, max_msgs_per_subject=2, max_age=60.0
    )
    with Nats([], [stream]).in_use() as nats:
        for number in range(3):
            publish("orders.a", str(number))
        publish("orders.b", b"3")
        assert [each.data for each in nats.messages()] == [b"1", b"2", b"3"]
        publish("orders.c", b"4")
        assert [each.data for each in nats.messages()] == [b"2", b"3", b"4"]
        nats.advance(60)
        assert nats.messages() == []


def test_a_work_queue_removes_what_was_handled() -> None:
    stream = StreamConfig(name="orders", subjects=["orders.>"], retention="workqueue")
    with Nats([consumer()], [stream]).in_use() as nats:
        publish(CREATED, b"")
        nats.run()
        assert nats.messages() == []


def test_a_handler_that_publishes_what_it_consumes_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nats_consumer.testing.nats._MOST_ATTEMPTS", 20)
    with Nats([consumer(lambda message: publish(CREATED, b"") and None)]).in_use() as nats:
        publish(CREATED, b"")
        with pytest.raises(RuntimeError, match="publish what it consumes"):
            nats.run()


def test_all_consumers_of_the_project_get_messages_by_default(empty_registry: None) -> None:
    class Orders(JetstreamPullConsumer):
        stream_name = "orders"
        filter_subject = CREATED

        def handle_message(self, message: Any) -> None: ...

    with Nats().in_use() as nats:
        publish(CREATED, b"")
        nats.run()
    assert [each.consumer for each in nats.attempts] == [Orders]


def test_nobody_answers_requests() -> None:
    with Nats([]).in_use(), pytest.raises(NoResponders):
        request("prices", b"")


def test_an_unknown_consumer_is_named() -> None:
    with pytest.raises(LookupError, match="Orders is not among the consumers"):
        Nats([]).pending(consumer())


def test_nothing_due_is_said() -> None:
    orders = consumer()
    with Nats([orders]).in_use() as nats, pytest.raises(LookupError, match="Nothing is due"):
        nats.deliver_one(orders)


def test_an_async_test_awaits_the_run() -> None:
    async def handle_message(self: Any, message: Any) -> None:
        await asyncio.sleep(0)

    async def test() -> Nats:
        with Nats([consumer(handle_message=handle_message)]).in_use() as nats:
            await apublish(CREATED, b"")
            with pytest.raises(RuntimeError, match="use arun"):
                nats.run()
            await nats.arun()
            await nats.aadvance(1)
        return nats

    assert len(asyncio.run(test()).attempts) == 1


def test_a_replayed_dead_letter_is_handled_again() -> None:
    is_mended: list[bool] = []
    orders = consumer(lambda message: None if is_mended else DeadLetter("no card"))
    with Nats([orders]).in_use() as nats:
        publish(CREATED, {"number": 7}, msg_id="order-7")
        nats.run()
        is_mended.append(True)
        assert nats.replay(orders) == 1
        nats.run()
    assert nats.dead_letters(orders) == []
    assert [each.outcome for each in nats.attempts] == [DeadLetter("no card"), Ack()]


def test_a_copy_that_a_handler_keeps_is_a_dead_letter() -> None:
    def act(message: Any) -> None:
        ConsumerHandler(["any"]).send_to_dlq(message, "looked odd")

    orders = consumer(act)
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"odd")
        nats.run()
    assert [each.reason for each in nats.dead_letters()] == ["looked odd"]


@pytest.mark.django_db(transaction=True)
def test_what_waits_for_a_commit_is_stored_when_it_comes() -> None:
    with Nats([consumer()]).in_use() as nats:
        with transaction.atomic():
            publish_on_commit(CREATED, b"", outbox=False)
            assert nats.messages() == []
        assert len(nats.messages()) == 1
        nats.run()
        assert len(nats.messages()) == 1


@pytest.mark.django_db
def test_run_publishes_what_the_transaction_of_the_test_holds_back() -> None:
    with Nats([consumer()]).in_use() as nats:
        publish_on_commit(CREATED, b"", outbox=False)
        nats.run()
        nats.run()
    assert len(nats.attempts) == 1


@pytest.mark.django_db
def test_a_hook_that_another_helper_has_called_publishes_nothing_more(
    django_capture_on_commit_callbacks: Any,
) -> None:
    with Nats([consumer()]).in_use() as nats:
        with django_capture_on_commit_callbacks(execute=True):
            publish_on_commit(CREATED, b"", outbox=False)
        assert len(nats.messages()) == 1
        nats.run()
    assert len(nats.messages()) == 1


@pytest.mark.django_db
def test_what_was_rolled_back_is_not_published() -> None:
    with Nats([consumer()]).in_use() as nats:
        with transaction.atomic():
            publish_on_commit(CREATED, b"", outbox=False)
            transaction.set_rollback(True)
        nats.run()
    assert nats.published == []


@pytest.mark.usefixtures("outbox")
@pytest.mark.django_db
def test_run_relays_the_rows_of_the_outbox() -> None:
    def act(message: Any) -> None:
        Receipt.objects.create(number=message.json()["number"])
        publish_on_commit("orders.recorded", {"number": 7})

    with Nats([consumer(act)]).in_use() as nats:
        publish_on_commit(CREATED, {"number": 7})
        assert [each.subject for each in OutboxMessage.objects.all()] == [CREATED]
        nats.run()
    assert [each.subject for each in nats.published] == [CREATED, "orders.recorded"]
    assert Receipt.objects.count() == 1
    assert not OutboxMessage.objects.exists()


@pytest.mark.usefixtures("outbox")
@pytest.mark.django_db
def test_a_row_that_no_stream_takes_stays_with_its_error() -> None:
    with Nats([], [StreamConfig(name="orders", subjects=["orders.>"])]).in_use() as nats:
        publish_on_commit("bills.wanted", b"")
        nats.run()
    assert "No stream" in OutboxMessage.objects.get().error


@pytest.mark.django_db
def test_an_idempotent_handler_works_once_for_a_message_that_came_twice() -> None:
    orders = consumer(lambda message: Receipt.objects.create(number=7) and None, idempotent=True)
    with Nats([orders]).in_use() as nats:
        publish(CREATED, b"")
        nats.run()
        nats.redeliver(orders)
        nats.run()
    assert [each.outcome for each in nats.attempts] == [Ack(), Ack()]
    assert Receipt.objects.count() == 1


@pytest.mark.django_db
def test_an_idempotent_handler_that_fails_writes_nothing() -> None:
    def act(message: Any) -> Any:
        Receipt.objects.create(number=message.attempt)
        return Retry(5) if message.attempt == 1 else None

    with Nats([consumer(act, idempotent=True)]).in_use() as nats:
        publish(CREATED, b"")
        nats.run()
    assert [each.number for each in Receipt.objects.all()] == [2]


def batching(act: Any, **attributes: Any) -> type[JetstreamPullConsumer]:
    """A consumer of batches: an exception that `act` returns is raised."""

    def handle_batch(self: Any, messages: list[Any]) -> Any:
        answer = act(messages)
        if isinstance(answer, Exception):
            raise answer
        return answer

    members = {"stream_name": "orders", "filter_subject": CREATED, "handle_batch": handle_batch}
    return type("Orders", (JetstreamPullConsumer,), {"max_batch": 100, **members, **attributes})


def test_a_batch_has_the_messages_that_are_due() -> None:
    sizes: list[int] = []
    orders = batching(lambda messages: sizes.append(len(messages)))
    with Nats([orders]).in_use() as nats:
        publish_many([(CREATED, str(number)) for number in range(250)])
        nats.run()
    assert sizes == [100, 100, 50]
    assert len(nats.attempts) == 250


def test_one_poison_message_of_a_hundred_is_found_in_few_calls() -> None:
    sizes: list[int] = []

    def act(messages: list[Any]) -> Any:
        sizes.append(len(messages))
        return ValueError("no") if any(each.data == b"42" for each in messages) else None

    orders = batching(act, max_retries=0, handle_error_ack_behavior=ErrorAckBehavior.DEAD_LETTER)
    with Nats([orders]).in_use() as nats:
        publish_many([(CREATED, str(number)) for number in range(100)])
        nats.run()
    [letter] = nats.dead_letters(orders)
    assert letter.payload == b"42"
    assert len(sizes) <= 16


@pytest.mark.django_db
def test_an_idempotent_batch_leaves_out_what_was_handled() -> None:
    def act(messages: list[Any]) -> None:
        for each in messages:
            Receipt.objects.create(number=each.json()["number"])

    orders = batching(act, idempotent=True)
    with Nats([orders]).in_use() as nats:
        publish_many([(CREATED, {"number": number}) for number in range(3)])
        nats.run()
        publish(CREATED, {"number": 3})
        nats.redeliver(orders)
        nats.run()
    assert sorted(Receipt.objects.values_list("number", flat=True)) == [0, 1, 2, 3]


@pytest.mark.parametrize("swallowed", [(), (asyncio.CancelledError,)])
def test_an_async_batch_that_outlasts_its_timeout_comes_again(
    swallowed: tuple[type[BaseException], ...],
) -> None:
    calls: list[int] = []

    async def handle_batch(self: Any, messages: list[Any]) -> None:
        calls.append(len(messages))
        if len(calls) == 1:
            with suppress(*swallowed):
                await asyncio.Event().wait()

    orders = batching(None, handle_batch=handle_batch, handler_timeout=0.05)
    with Nats([orders]).in_use() as nats:
        publish_many([(CREATED, b""), (CREATED, b"")])
        nats.run()
    assert calls == [2, 2]
    assert [each.number for each in nats.attempts] == [1, 1, 2, 2]
