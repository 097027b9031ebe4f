"""Bad input gets a clear error, and no message is lost by it."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable

import pytest
from pytest_django import Settings

from nats_consumer import get_nats_client
from tests.live.support.project import Project
from tests.servers import NatsServer
from tests.waiting import eventually

CONSUMERS = """
import json, logging
from nats_consumer import ErrorAckBehavior, JetstreamPullConsumer, JetstreamPushConsumer, operations

logger = logging.getLogger("shop")


class OrderConsumer(JetstreamPushConsumer):
    stream_name = {stream!r}
    filter_subject = "{stream}.>"
    max_retries = 2
    initial_retry_delay = 0.05
    max_retry_delay = 0.1
    handle_error_ack_behavior = ErrorAckBehavior.DEAD_LETTER

    async def setup(self):
        return [operations.CreateStream(name={stream!r}, subjects=["{stream}.>"])]

    async def handle_message(self, message):
        logger.info("attempt %s at %r", message.attempt, message.data)
        json.loads(message.data or b"null")
        logger.info("handled %r", message.data)
"""


@pytest.fixture
def stream(fresh: Callable[[str], str]) -> str:
    return fresh("orders")


def store(stream: str, *payloads: bytes, create: bool = True, subject: str = "created") -> None:
    """Have the messages in the stream before any worker is there."""

    async def publish() -> None:
        async with await get_nats_client() as client:
            if create:
                await client.jetstream().add_stream(name=stream, subjects=[f"{stream}.>"])
            for payload in payloads:
                await client.jetstream().publish(f"{stream}.{subject}", payload)

    asyncio.run(publish())


@pytest.mark.parametrize("arguments", [(), ("--setup",)])
def test_server_that_is_not_there_ends_the_command(
    make_project: Callable[..., Project], stream: str, arguments: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # Closed again: nobody listens there.
    project = make_project(CONSUMERS.format(stream=stream), f"nats://127.0.0.1:{port}")
    worker = project.consume(*arguments)
    assert worker.finish(timeout=15) == 1
    [line] = worker.lines_with("CommandError: ")
    assert f"127.0.0.1:{port}" in line
    assert "Traceback" not in worker.output


def test_server_that_says_nothing_ends_the_command_after_connect_timeout(
    make_project: Callable[..., Project], stream: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        project = make_project(CONSUMERS.format(stream=stream), f"nats://127.0.0.1:{port}")
        began = time.monotonic()
        worker = project.consume()
        assert worker.finish(timeout=15) == 1
    assert time.monotonic() - began >= 1  # the project's connect_timeout
    [line] = worker.lines_with("CommandError: ")
    assert f"127.0.0.1:{port}" in line
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("lose", ["stop", "kill"])
def test_server_lost_while_running_and_back_goes_on(
    make_project: Callable[..., Project],
    own_server: NatsServer,
    stream: str,
    settings: Settings,
    lose: str,
) -> None:
    settings.NATS_CONSUMER = {"connect_args": {"servers": own_server.url}}
    worker = make_project(CONSUMERS.format(stream=stream), own_server.url).consume("--setup")
    worker.wait_for("OrderConsumer: consuming")
    store(stream, b"1", create=False)
    worker.wait_for("handled b'1'")
    getattr(own_server, lose)()
    own_server.start()
    store(stream, b"2", create=False)
    worker.wait_for("handled b'2'")
    worker.interrupt()
    assert worker.finish() == 0, worker.output
    if lose == "stop":  # a server that is killed may forget what was acknowledged just before
        assert own_server.consumer(stream, "OrderConsumer")["ack_floor"]["stream_seq"] == 2


def test_a_signal_ends_it_while_the_server_is_away(
    make_project: Callable[..., Project], own_server: NatsServer, stream: str
) -> None:
    worker = make_project(CONSUMERS.format(stream=stream), own_server.url).consume("--setup")
    worker.wait_for("OrderConsumer: consuming")
    own_server.kill()
    worker.interrupt(signal.SIGTERM)
    assert worker.finish(timeout=20) == 0, worker.output


def test_missing_stream_is_named_with_the_remedy(
    make_project: Callable[..., Project], nats_server: NatsServer, stream: str
) -> None:
    worker = make_project(CONSUMERS.format(stream=stream)).consume()
    assert worker.finish() == 1
    [line] = worker.lines_with("CommandError: ")
    assert stream in line
    assert "--setup" in worker.output
    assert "Traceback" not in worker.output
    assert stream not in nats_server.streams()


def test_consumer_without_handle_message_does_not_start(
    make_project: Callable[..., Project], nats_server: NatsServer, stream: str
) -> None:
    store(stream, b"1")
    text = CONSUMERS.format(stream=stream).replace("async def handle_message", "async def handle")
    worker = make_project(text).consume()
    assert worker.finish() == 1
    assert "OrderConsumer" in worker.output
    assert "it has no handle_message" in worker.output
    assert "Traceback" not in worker.output
    assert nats_server.stream(stream)["state"]["messages"] == 1


def test_consumer_that_forgot_to_await_its_handler_does_not_start(
    make_project: Callable[..., Project], nats_server: NatsServer, stream: str
) -> None:
    store(stream, b"1")
    worker = make_project(f"""
        from nats_consumer import ConsumerHandler, JetstreamPullConsumer


        class OrderHandler(ConsumerHandler):
            def __init__(self):
                super().__init__(["{stream}.created"])

            async def handle_created(self, message): ...


        class OrderConsumer(JetstreamPullConsumer):
            stream_name = "{stream}"
            filter_subject = ">"

            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.handler = OrderHandler()

            async def handle_message(self, message):
                self.handler.handle(message)
    """).consume()
    assert worker.finish() == 1
    assert "nats_consumer.E004" in worker.output
    assert "Write: await self.handler.handle(message)" in worker.output
    assert nats_server.stream(stream)["state"]["messages"] == 1


@pytest.mark.parametrize(
    ("name", "why"), [("my orders", "spaces"), ("my.orders", "dots"), ("my*orders", "'*'")]
)
def test_stream_name_that_no_stream_can_have_is_refused(
    make_project: Callable[..., Project], name: str, why: str
) -> None:
    worker = make_project(CONSUMERS.format(stream=name)).consume("--setup")
    assert worker.finish() == 1
    assert f"stream_name of OrderConsumer cannot contain {why}: {name!r}" in worker.output


def test_subjects_of_another_stream_are_refused_and_both_are_named(
    make_project: Callable[..., Project], nats_server: NatsServer, stream: str
) -> None:
    store(stream, b"1")
    text = CONSUMERS.format(stream=stream).replace(
        f"CreateStream(name={stream!r}", f"CreateStream(name={stream + '_two'!r}"
    )
    worker = make_project(text).consume("--setup")
    assert worker.finish() == 1
    [line] = worker.lines_with("CommandError: ")
    assert f"'{stream}_two'" in line
    assert f"'{stream}.>' belongs to stream '{stream}'" in line
    assert "Traceback" not in worker.output
    assert f"{stream}_two" not in nats_server.streams()
    assert nats_server.stream(stream)["state"]["messages"] == 1


def test_payload_that_is_not_json_is_retried_and_then_gets_its_final_treatment(
    make_project: Callable[..., Project], nats_server: NatsServer, stream: str
) -> None:
    store(stream, b"not json", b'{"id": 1}')
    worker = make_project(CONSUMERS.format(stream=stream)).consume("--setup")
    worker.wait_for("attempt 3 of 3")
    worker.wait_for("""handled b'{"id": 1}'""")

    def dead_letters() -> int:
        streams = nats_server.streams()
        return streams.get(f"{stream}-dlq", {"state": {"messages": 0}})["state"]["messages"]

    eventually(lambda: dead_letters() == 1)
    worker.interrupt()
    assert worker.finish() == 0, worker.output
    attempts = worker.lines_with("at b'not json'")
    assert [line.split()[3] for line in attempts] == ["1", "2", "3"]
    assert "JSONDecodeError" in worker.output
    position = nats_server.consumer(stream, "OrderConsumer")
    assert (position["ack_floor"]["stream_seq"], position["num_pending"]) == (2, 0)


def test_empty_payload_is_handled(
    make_project: Callable[..., Project], nats_server: NatsServer, stream: str
) -> None:
    store(stream, b"")
    worker = make_project(CONSUMERS.format(stream=stream)).consume()
    worker.wait_for("handled b''")
    worker.interrupt()
    assert worker.finish() == 0, worker.output
    assert nats_server.consumer(stream, "OrderConsumer")["ack_floor"]["stream_seq"] == 1


@pytest.mark.parametrize("consumers", [None, "", "import nats_consumer"])
def test_without_consumers_the_command_says_where_it_looked(
    make_project: Callable[..., Project], consumers: str | None
) -> None:
    worker = make_project(consumers).consume()
    assert worker.finish() == 1
    [line] = worker.lines_with("CommandError: ")
    assert "No consumer is registered" in line
    assert "shop" in line


def test_unknown_name_lists_what_there_is(
    make_project: Callable[..., Project], stream: str
) -> None:
    worker = make_project(CONSUMERS.format(stream=stream)).consume("OrdreConsumer")
    assert worker.finish() == 1
    [line] = worker.lines_with("CommandError: ")
    assert "'OrdreConsumer'" in line
    assert "Registered: OrderConsumer" in line


@pytest.mark.parametrize(
    ("consumers", "cause"),
    [
        ("from shop.nothing import that", "ModuleNotFoundError: No module named 'shop.nothing'"),
        ("class Broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_broken_consumers_module_is_an_error_with_its_traceback(
    make_project: Callable[..., Project], consumers: str, cause: str
) -> None:
    worker = make_project(consumers).consume()
    assert worker.finish() != 0
    assert "Traceback" in worker.output
    assert "shop/consumers.py" in worker.output
    assert cause in worker.output


def test_one_consumer_that_cannot_start_does_not_stop_the_others(
    make_project: Callable[..., Project], nats_server: NatsServer, stream: str
) -> None:
    store(stream, b"1")
    text = (
        CONSUMERS.format(stream=stream)
        + f"""
class Missing(OrderConsumer):
    stream_name = "{stream}_missing"
    setup = None
"""
    )
    worker = make_project(text).consume()
    worker.wait_for("handled b'1'")
    line = worker.wait_for("Missing: the consumer did not start")
    assert f"{stream}_missing" in line
    store(f"{stream}_missing", b"2", subject="created")
    worker.wait_for("Missing: consuming")
    worker.interrupt()
    assert worker.finish() == 0, worker.output
