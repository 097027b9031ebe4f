"""No value that a user passes becomes a second command of the protocol."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nats_consumer import DeadLetter, JetstreamPullConsumer, apublish, publish, publish_many
from nats_consumer.declare import registry
from nats_consumer.declare.options import consumer_options
from nats_consumer.exceptions import ConfigurationError, NatsConsumerError
from tests.live.support.stage import Stage, running

pytestmark = pytest.mark.anyio

SMUGGLED = "smuggled"
COMMAND = f"\r\nPUB {SMUGGLED} 2\r\nhi\r\n"
# As the end of a word, and as a word of its own.
WORDS = [f"a{COMMAND}", f"a 0{COMMAND}", f"a\n{COMMAND}", "a b", "a\tb", "a\0b"]

Way = Callable[[Stage, str], Awaitable[object]]


def subject_of(stage: Stage) -> str:
    return f"{stage.stream}.created"


async def _blocking(function: Callable[..., object], *arguments: Any, **named: Any) -> None:
    function(*arguments, **named)


async def _eventually_published(stage: Stage, word: str) -> None:
    await (await stage.jetstream.publish_async(word, b""))


SUBJECTS: dict[str, Way] = {
    "publish": lambda stage, word: _blocking(publish, word, b""),
    "apublish": lambda stage, word: apublish(word, b""),
    "publish_many": lambda stage, word: _blocking(publish_many, [(word, b"")]),
    "client.publish": lambda stage, word: stage.client.publish(word, b""),
    "client.request": lambda stage, word: stage.client.request(word, b"", timeout=1),
    "reply": lambda stage, word: stage.client.publish("a", b"", reply=word),
    "client.subscribe": lambda stage, word: stage.client.subscribe(word),
    "queue": lambda stage, word: stage.client.subscribe("a", queue=word),
    "js.publish": lambda stage, word: stage.jetstream.publish(word, b""),
    "js.publish_async": lambda stage, word: _eventually_published(stage, word),
    "js.subscribe": lambda stage, word: stage.jetstream.subscribe(word, stream=stage.stream),
}
HEADERS: dict[str, Way] = {
    "publish": lambda stage, word: _blocking(publish, subject_of(stage), b"", headers={"A": word}),
    "apublish": lambda stage, word: apublish(subject_of(stage), b"", headers={"A": word}),
    "name": lambda stage, word: apublish(subject_of(stage), b"", headers={word: "a"}),
    "msg_id": lambda stage, word: apublish(subject_of(stage), b"", msg_id=word),
    "client.publish": lambda stage, word: stage.client.publish("a", b"", headers={"A": word}),
    "client.request": lambda stage, word: stage.client.request("a", b"", headers={"A": word}),
    "js.publish": lambda stage, word: stage.jetstream.publish(
        subject_of(stage), b"", headers={"A": word}
    ),
    "expected stream": lambda stage, word: stage.jetstream.publish(
        subject_of(stage), b"", stream=word
    ),
}
NAMES: dict[str, Way] = {
    "stream_info": lambda stage, word: stage.jetstream.stream_info(word),
    "add_stream": lambda stage, word: stage.jetstream.add_stream(name=word, subjects=["x"]),
    "delete_stream": lambda stage, word: stage.jetstream.delete_stream(word),
    "consumer_info": lambda stage, word: stage.jetstream.consumer_info(stage.stream, word),
    "stream of consumer_info": lambda stage, word: stage.jetstream.consumer_info(word, "a"),
    "delete_consumer": lambda stage, word: stage.jetstream.delete_consumer(stage.stream, word),
    "add_consumer": lambda stage, word: stage.jetstream.add_consumer(stage.stream, name=word),
    "durable of add_consumer": lambda stage, word: stage.jetstream.add_consumer(
        stage.stream, durable_name=word
    ),
    "pull_subscribe": lambda stage, word: stage.jetstream.pull_subscribe(
        subject_of(stage), durable=word, stream=stage.stream
    ),
    "durable of subscribe": lambda stage, word: stage.jetstream.subscribe(
        subject_of(stage), durable=word, stream=stage.stream
    ),
    "get_msg": lambda stage, word: stage.jetstream.get_msg(word, 1),
    "delete_msg": lambda stage, word: stage.jetstream.delete_msg(word, 1),
    "prefix": lambda stage, word: stage.client.jetstream(prefix=word).account_info(),
    "domain": lambda stage, word: stage.client.jetstream(domain=word).account_info(),
}
WAYS = [
    pytest.param(way, id=f"{kind}-{name}")
    for kind, ways in (("subject", SUBJECTS), ("header", HEADERS), ("name", NAMES))
    for name, way in ways.items()
]


@pytest.mark.parametrize("way", WAYS)
async def test_a_word_that_would_be_a_command_is_refused_and_nothing_is_sent(
    stage: Stage, way: Way
) -> None:
    smuggled = await stage.client.subscribe(SMUGGLED)
    for word in WORDS:
        if word == "a b" and way in HEADERS.values() and way is not HEADERS["name"]:
            continue  # a space in a value is no harm
        with pytest.raises((NatsConsumerError, ValueError)):
            await way(stage, word)
    await stage.client.flush()
    assert smuggled.pending_msgs == 0
    assert stage.client.is_connected
    assert stage.client.stats["reconnects"] == 0
    info = await stage.jetstream.stream_info(stage.stream)
    assert info.state.messages == 0


async def test_a_reason_and_an_error_of_several_lines_are_one_header_each(stage: Stage) -> None:
    smuggled = await stage.client.subscribe(SMUGGLED)
    letters = await stage.client.subscribe("dlq.>")

    class Burying(JetstreamPullConsumer):
        stream_name = stage.stream
        filter_subject = f"{stage.stream}.>"

        async def handle_message(self, message: Any) -> None:
            raise DeadLetter(f"no{COMMAND}Nats-Rollup: all\r\n")

    async with running(Burying):
        await stage.jetstream.publish(subject_of(stage), b"x")
        letter = await letters.next_msg(timeout=15)
    assert "\r" not in letter.headers["Dlq-Reason"]
    assert "Nats-Rollup" not in letter.headers
    assert smuggled.pending_msgs == 0


@pytest.mark.parametrize("attribute", ["stream_name", "durable_name", "filter_subject"])
async def test_a_consumer_with_such_a_name_does_not_start(
    attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_declared", {})
    attributes = {"stream_name": "a", "filter_subject": "a", "handle_message": print}

    def options_with(word: str) -> None:
        declared: Any = type("Named", (JetstreamPullConsumer,), {**attributes, attribute: word})
        consumer_options(declared)

    for word in WORDS:
        with pytest.raises((ConfigurationError, ValueError)):
            options_with(word)
