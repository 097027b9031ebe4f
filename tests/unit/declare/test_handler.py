"""Routing by method name and by @handle."""

import asyncio
import threading
from concurrent.futures import Future
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from nats.aio.msg import Msg

from nats_consumer import ConsumerHandler, Retry, handle
from nats_consumer.declare.retry import RetryPolicy
from nats_consumer.declare.signatures import returns_nothing
from nats_consumer.lanes import thread_lane
from tests.unit.support.doubles import FakeMessage


class Recording(ConsumerHandler):
    """Notes which method got a message; every `handle_...` name exists."""

    def __init__(self, subjects: Any = ()) -> None:
        super().__init__(subjects)
        self.got: list[str] = []

    async def fallback_handle(self, msg: Any, reason: str = "unknown") -> None:
        self.got.append(f"fallback {reason}")


def routed(handler: Recording, subject: str) -> list[str]:
    asyncio.run(_route(handler, subject))
    return handler.got


async def _route(handler: Recording, subject: str) -> None:
    await handler.handle(FakeMessage(subject))


def implementing(*names: str) -> type[Recording]:
    def method(name: str) -> Any:
        async def note(self: Recording, message: Any) -> None:
            self.got.append(name)

        return note

    return type("Implementing", (Recording,), {name: method(name) for name in names})


@pytest.mark.parametrize(
    ("subject", "method"),
    [
        ("orders.created", "handle_created"),
        ("users.profile.updated", "handle_profile_updated"),
        ("orders.old.archived.v2", "handle_old_archived_v2"),
        ("orders-created", "handle_created"),
        ("orders_created", "handle_created"),
        ("orders", "handle_orders"),
        ("orders-old.deleted_now", "handle_old_deleted_now"),
        ("my-app.orders.created", "handle_app_orders_created"),
        ("orders.payment-failed", "handle_payment_failed"),
        ("Orders.Created", "handle_Created"),
        ("orders.123", "handle_123"),
        ("orders.créé", "handle_créé"),
        ("$KV.bucket.key", "handle_bucket_key"),
    ],
)
def test_a_subject_leads_to_the_method_of_all_after_its_first_token(
    subject: str, method: str
) -> None:
    assert routed(implementing(method)([subject]), subject) == [method]


@pytest.mark.parametrize(
    ("subjects", "subject", "reason"),
    [
        (["orders.created"], "orders.deleted", "unhandled_subject"),
        (["orders.created"], "orders.Created", "unhandled_subject"),
        (["orders.*"], "orders.created", "unhandled_subject"),
        (["orders.*"], "orders.*", "no_mapping"),
        (["orders.updated"], "orders.updated", "not_implemented"),
        ([], "orders.created", "no_handler"),
    ],
)
def test_what_has_no_method_goes_to_the_fallback_with_the_reason(
    subjects: list[str], subject: str, reason: str
) -> None:
    assert routed(implementing("handle_created")(subjects), subject) == [f"fallback {reason}"]


@pytest.mark.parametrize(
    ("subjects", "collisions"),
    [
        (["orders.created", "orders.updated"], 0),
        (["orders.created", "users.created"], 1),
        (["orders.created", "users-created", "items_created"], 2),
        (["orders.created", "orders.created"], 1),
    ],
)
def test_each_subject_that_shares_a_method_is_reported(
    subjects: list[str], collisions: int, caplog: pytest.LogCaptureFixture
) -> None:
    implementing("handle_created", "handle_updated")(subjects)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == collisions
    assert all("collision" in text and "'orders.created'" in text for text in warnings)


def test_subjects_that_collide_are_both_handled() -> None:
    handler = implementing("handle_created")(["orders.created", "users.created"])
    assert routed(handler, "users.created") == ["handle_created"]


def test_dots_are_recommended_for_subjects_without_any(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "nats_consumer")
    implementing()(["orders-created", "orders.updated"])
    assert "RECOMMENDATION" in caplog.text
    assert "['orders-created']" in caplog.text


def test_a_text_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a list of subjects"):
        ConsumerHandler("orders.created")


def test_a_wildcard_in_the_list_of_subjects_says_that_it_needs_a_marked_method(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = ConsumerHandler(["odd.x.*", "odd.>"])
    assert handler.wildcards_without_method() == ["odd.x.*", "odd.>"]
    assert ": the wildcard 'odd.x.*' in the subject list has no method" in caplog.text
    assert "Mark one with @handle('odd.x.*')" in caplog.text
    assert "handles no subject" not in caplog.text


def test_a_wildcard_in_the_list_whose_messages_a_marked_method_takes_passes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert Marked(["orders.*", "orders.>"]).wildcards_without_method() == []
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["fallback_handle", "handle"])
def test_a_wildcard_that_a_handler_decides_about_itself_passes(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert implementing(name)(["orders.>"]).wildcards_without_method() == []
    assert caplog.text == ""


def test_missing_methods_are_listed_for_every_subject() -> None:
    handler = implementing("handle_x")(["a.b", "c.b", "d.x"])
    assert handler.validate_handlers() == ["handle_b", "handle_b"]
    assert handler.get_handler_methods() == ["handle_b", "handle_b", "handle_x"]


def test_the_default_fallback_hands_the_message_back_with_the_retry_delay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = ConsumerHandler(["orders.created"])
    handler.retry_policy = RetryPolicy(initial_delay=2.0)
    message = FakeMessage("orders.deleted", attempt=3)

    async def route() -> None:
        await handler.handle(message)

    asyncio.run(route())
    assert message.settled == [("nak", 8.0)]
    assert "Message 7 of stream orders is redelivered to the durable billing in 8 s" in caplog.text


def test_a_copy_for_the_dead_letters_leaves_the_message_to_be_settled() -> None:
    class Sending(Recording):
        async def fallback_handle(self, msg: Any, reason: str = "unknown") -> None:
            await self.send_to_dlq(msg, reason)
            await msg.ack()

    message = FakeMessage("orders.deleted")
    handler = Sending(["orders.created"])

    async def route() -> None:
        await handler.handle(message)

    asyncio.run(route())
    assert message.copies == ["unhandled_subject"]
    assert message.settled == [("ack", None)]


class Marked(Recording):
    @handle("orders.created", "orders.modified")
    async def exact(self, message: Any) -> None:
        self.got.append("exact")

    @handle("orders.*")
    @handle("*.error")
    async def star(self, message: Any) -> None:
        self.got.append("star")

    @handle("orders.>")
    async def rest(self, message: Any) -> None:
        self.got.append("rest")

    @handle("orders.*.failed")
    async def _failed(self, message: Any) -> None:
        self.got.append("failed")

    @handle("*.users.>")
    async def anywhere(self, message: Any) -> None:
        self.got.append("anywhere")

    async def handle_updated(self, message: Any) -> None:
        self.got.append("mapped")

    @property
    def fragile(self) -> None:
        raise AssertionError("a property was evaluated")


@pytest.mark.parametrize(
    ("subject", "method"),
    [
        ("orders.created", "exact"),
        ("orders.modified", "exact"),
        ("orders.shipped", "star"),
        ("users.error", "star"),
        ("orders.eu.shipped", "rest"),
        ("orders.eu.failed", "failed"),
        ("eu.users.created.v1", "anywhere"),
        ("orders", "fallback no_handler"),
    ],
)
def test_a_marked_method_gets_its_subjects_most_specific_first(subject: str, method: str) -> None:
    assert routed(Marked(), subject) == [method]


def test_a_mapped_name_goes_before_a_wildcard_and_after_an_exact_mark() -> None:
    assert routed(Marked(["orders.updated"]), "orders.updated") == ["mapped"]
    assert routed(Marked(["orders.created"]), "orders.created") == ["exact"]


def test_an_override_without_the_decorator_keeps_the_subjects() -> None:
    class Overriding(Marked):
        async def exact(self, message: Any) -> None:
            self.got.append("overridden")

    assert routed(Overriding(), "orders.created") == ["overridden"]


def test_an_override_with_the_decorator_has_its_own_subjects_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Overriding(Marked):
        @handle("orders.cancelled")
        async def exact(self, message: Any) -> None:
            self.got.append("overridden")

    assert routed(Overriding(), "orders.cancelled") == ["overridden"]
    assert routed(Overriding(), "orders.modified") == ["star"]
    assert "marked on both" not in caplog.text


def test_a_listed_subject_without_its_method_goes_to_the_wildcard_that_matches() -> None:
    handler = Marked(["orders.shipped", "stock.counted"])
    assert routed(handler, "orders.shipped") == ["star"]
    assert handler.validate_handlers() == ["handle_counted"]


def test_a_listed_subject_that_is_marked_misses_no_method() -> None:
    assert Marked(["orders.created"]).validate_handlers() == []


def test_a_handler_that_forgot_to_call_the_constructor_of_its_base_says_so() -> None:
    class Forgetful(ConsumerHandler):
        def __init__(self, service: str) -> None:
            self.service = service

        @handle("orders.created")
        async def created(self, message: Any) -> None: ...

    handler = Forgetful("mail")
    with pytest.raises(TypeError, match=r"__init__ of Forgetful must call super\(\).__init__"):
        handler.handle(FakeMessage("orders.created"))
    with pytest.raises(TypeError, match=r"__init__ of Forgetful must call super\(\).__init__"):
        handler.validate_handlers()


def test_of_two_methods_for_one_subject_the_later_one_is_taken_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Twice(Recording):
        @handle("orders.created")
        async def zebra(self, message: Any) -> None:
            self.got.append("zebra")

        @handle("orders.created")
        async def ant(self, message: Any) -> None:
            self.got.append("ant")

    assert routed(Twice(), "orders.created") == ["ant"]
    assert "marked on both zebra() and ant()" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        ((print,), TypeError),
        ((["orders.created"],), TypeError),
        (("",), ValueError),
        (("orders.>.x",), ValueError),
        (("orders created",), ValueError),
    ],
)
def test_a_mistake_in_the_decorator_is_refused_at_once(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error, match="@handle"):
        handle(*arguments)


def test_a_handler_without_any_subject_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    ConsumerHandler()
    assert "handles no subject" in caplog.text


def test_an_async_method_is_called_without_a_wrapper() -> None:
    handler = Marked()
    answer = handler.handle(FakeMessage("orders.created"))
    assert answer.__qualname__ == "Marked.exact"
    answer.close()


class Answering(Recording):
    """Its methods return something."""

    def __init__(self) -> None:
        super().__init__(["orders.gathered", "orders.submitted", "orders.postponed", "orders.done"])

    async def handle_gathered(self, message: Any) -> Any:
        return asyncio.gather(asyncio.sleep(0))

    def handle_submitted(self, message: Any) -> Any:
        return Future()

    async def handle_postponed(self, message: Any) -> Any:
        return Retry(5)

    async def handle_done(self, message: Any) -> Any:
        return message.ack()

    async def fallback_handle(self, msg: Any, reason: str = "unknown") -> Any:
        return asyncio.ensure_future(asyncio.sleep(0))


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ("gathered", "handle_gathered returned a GatheringFuture that is not awaited"),
        ("submitted", "handle_submitted returned a future of a thread pool that is not waited for"),
        ("unknown", "fallback_handle returned a Task that is not awaited"),
    ],
)
def test_work_that_a_method_returns_unfinished_fails(event: str, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        routed(Answering(), f"orders.{event}")


def test_an_outcome_that_a_method_returns_counts_though_the_caller_drops_it() -> None:
    with pytest.raises(Retry) as caught:
        routed(Answering(), "orders.postponed")
    assert caught.value == Retry(5)
    assert routed(Answering(), "orders.done") == []


def test_a_plain_def_that_calls_handle_hears_of_unfinished_work_and_outcomes() -> None:
    with thread_lane(asyncio.run):
        with pytest.raises(TypeError, match="handle_submitted returned a future"):
            Answering().handle(FakeMessage("orders.submitted"))
        with pytest.raises(Retry):
            Answering().handle(FakeMessage("orders.postponed"))


@pytest.mark.parametrize(
    ("name", "nothing"),
    [("handle_created", True), ("handle_postponed", False), ("handle_submitted", False)],
)
def test_only_a_method_that_may_return_something_has_its_answer_looked_at(
    name: str, nothing: bool
) -> None:
    class Mixed(Answering):
        async def handle_created(self, message: Any) -> None:
            for each in message.headers or ():
                if each:
                    return
            try:
                await message.ack()
            finally:
                self.got.append("created")

    assert returns_nothing(Mixed, name) is nothing


def test_a_blocking_method_runs_in_a_thread_of_its_own() -> None:
    class Blocking(Recording):
        def handle_created(self, message: Any) -> None:
            self.got.append(threading.current_thread().name)

    (name,) = routed(Blocking(["orders.created"]), "orders.created")
    assert name != threading.main_thread().name


def test_the_default_fallback_takes_a_stand_in_for_nats_pys_message() -> None:
    message = Mock(spec=Msg, subject="users.created", metadata=Mock(), nak=AsyncMock())
    asyncio.run(ConsumerHandler(["orders.created"]).handle(message))
    message.nak.assert_awaited_once_with(1.0)


def test_the_subjects_of_a_handler_are_those_of_its_list_and_of_its_marks() -> None:
    class Orders(ConsumerHandler):
        @handle("orders.*", "orders.paid")
        async def any(self, message: Any) -> None: ...

    assert Orders(["orders.created"]).get_subjects() == [
        "orders.created",
        "orders.*",
        "orders.paid",
    ]
