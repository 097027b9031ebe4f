"""The test kit's model and a real server agree about every scenario."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

import pytest
from django.test import override_settings

from nats_consumer import get_nats_client
from tests.live.support import later_scenarios  # noqa: F401 - it adds to the table
from tests.live.support.scenarios import SCENARIOS
from tests.live.support.worlds import Ledger, ModelWorld, RealWorld, World
from tests.servers import NatsServer

# A start is most of the work of a scenario. If all start at once, deliveries wait for longer than
# ack_wait, and messages for later come before those of now.
_STARTS_AT_ONCE = 2


async def told(world: World, story: Callable[[World], Awaitable[None]]) -> Ledger:
    await story(world)
    return await world.end()


async def told_for_real(names: Sequence[str]) -> dict[str, Ledger | BaseException]:
    """The scenarios, each on a stream of its own."""
    starts = asyncio.Semaphore(_STARTS_AT_ONCE)

    async def told_on_its_own(name: str) -> Ledger:
        return await told(RealWorld(f"s{uuid4().hex[:10]}", client, starts), SCENARIOS[name])

    async with await get_nats_client() as client:
        ledgers = await asyncio.gather(*map(told_on_its_own, names), return_exceptions=True)
    return dict(zip(names, ledgers, strict=True))


@pytest.fixture(scope="module")
def real(nats_server: NatsServer) -> dict[str, Ledger | BaseException]:
    """The ledgers of the real server."""
    settings = {"connect_args": {"servers": [nats_server.url]}}
    with override_settings(NATS_CONSUMER=settings):
        return asyncio.run(told_for_real(list(SCENARIOS)))


def test_the_table_is_long_enough_to_say_something() -> None:
    assert len(SCENARIOS) > 100


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_model_and_a_server_have_the_same_ledger(
    name: str, real: dict[str, Ledger | BaseException]
) -> None:
    model = asyncio.run(told(ModelWorld(f"s{uuid4().hex[:10]}"), SCENARIOS[name]))
    # Together they are a load. If the test is repeated, its scenario runs alone.
    there = real.pop(name, None) or asyncio.run(told_for_real([name]))[name]
    if isinstance(there, BaseException):
        raise there
    assert model.calls or model.stored
    assert model.calls == there.calls
    assert model.letters == there.letters
    assert model.stored == there.stored
    assert model.pending == there.pending
    assert model.notes == there.notes
    assert there.waits_at_least(model)
