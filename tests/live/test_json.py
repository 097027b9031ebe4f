"""message.json(), which the engine's side reads: the answer or the error of json.loads."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.live.support.stage import Stage, running

pytestmark = pytest.mark.anyio

ODD = [
    b"",
    b" ",
    b"nul",
    b"{",
    b'{"a": 1,}',
    b"[1, 2",
    b"{'a': 1}",
    b'{"a": 1} x',
    b'{"a": 1, "a": 2}',
    b'"\\ud800"',
    b'"\\ud83d\\ude00"',
    b'"\xed\xa0\x80"',
    b'"\xff"',
    b'"\x00"',
    b'"\t"',
    b"NaN",
    b"[Infinity, -Infinity]",
    b"1e400",
    b"-0",
    b"-0.0",
    b"01",
    b"1.",
    b"1E5",
    b"123456789012345678901234567890",
    b"9" * 4300,
    b"9" * 4301,
    b"0.1000000000000000055511151231257827",
    b"1.7976931348623157e308",
    b"4.9e-324",
    b"2.2250738585072011e-308",
    b"\xef\xbb\xbf{}",
    '{"a": 1}'.encode("utf-16"),
    '{"a": 1}'.encode("utf-32-le"),
    b"[" * 150 + b"]" * 150,
    b"[" * 300 + b"]" * 300,
    b"[" * 100_000,
    '"\u2028 \N{GRINNING FACE} \u00e9"'.encode(),
]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def some_payloads() -> list[bytes]:
    found: list[bytes] = []

    @settings(max_examples=300, database=None)
    @given(VALUES, st.booleans(), st.integers(0, 30), st.binary(max_size=2))
    def find(value: Any, is_ascii: bool, place: int, damage: bytes) -> None:
        text = json.dumps(value, ensure_ascii=is_ascii).encode(errors="surrogatepass")
        found.extend([text, text[:place] + damage + text[place:]])

    find()
    return found


def answer(read: Any) -> tuple[type, str]:
    try:
        value = read()
    except (ValueError, RecursionError) as error:
        return type(error), str(error)
    return type(value), repr(value)


@pytest.mark.parametrize("make_payloads", [lambda: ODD, some_payloads], ids=["odd", "random"])
async def test_json_of_a_message_is_what_json_loads_says(
    stage: Stage, make_payloads: Callable[[], list[bytes]]
) -> None:
    payloads = make_payloads()
    found: list[tuple[bytes, object, object]] = []

    class Orders(stage.Push):  # type: ignore[name-defined]
        async def handle_message(self, message: Any) -> None:
            theirs = answer(lambda: json.loads(message.data))
            found.append((message.data, answer(message.json), theirs))

    async with running(Orders):
        await stage.publish(*payloads)
        await stage.everything_is_settled(Orders)
    assert [data for data, _, _ in found] == payloads
    assert [each for each in found if each[1] != each[2]] == []


async def test_each_call_of_json_reads_the_payload_again(stage: Stage) -> None:
    found: list[bool] = []

    class Orders(stage.Pull):  # type: ignore[name-defined]
        def handle_message(self, message: Any) -> None:
            first = message.json()
            first["number"] = 8
            found.append(message.json() == {"number": 7})

    async with running(Orders):
        await stage.publish('{"number": 7}')
        await stage.everything_is_settled(Orders)
    assert found == [True]


async def test_an_answer_to_a_request_has_json_too(stage: Stage) -> None:
    answer = await stage.client.request(f"$JS.API.STREAM.INFO.{stage.stream}", b"", timeout=5)
    assert answer.json() == json.loads(answer.data)
