"""The relay of the outbox is killed at each of its steps."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nats_consumer.client import Client, get_nats_client
from tests.faults.support.nodes import Node
from tests.faults.support.postgres import Postgres

SCRIPT = Path(__file__).parent / "support/outbox_relay.py"
KILLS = 50
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.sqlite3")}
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.settings()


@pytest.mark.parametrize("point", ["read", "published", "deleted"])
def test_what_was_committed_is_stored_once_although_the_relay_is_killed(
    node: Node, database: dict[str, Any], point: str
) -> None:
    asyncio.run(make_stream(node.url))
    options = {
        "database": database,
        "servers": [node.url],
        "subject": "orders.created",
        "point": point,
        "kills": KILLS,
    }
    command = [sys.executable, str(SCRIPT), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = asyncio.run(stored(node.url))
    assert sorted(numbers) == [number for number in range(100) if number % 5]
    for key in range(3):
        of_key = [number for number in numbers if number % 3 == key]
        assert of_key == sorted(of_key)


async def client_of(url: str) -> Client:
    return await get_nats_client(servers=[url])


async def make_stream(url: str) -> None:
    async with await client_of(url) as client:
        await client.jetstream().add_stream(name="orders", subjects=["orders.>"])


async def stored(url: str) -> list[int]:
    async with await client_of(url) as client:
        js = client.jetstream()
        last = (await js.stream_info("orders")).state.last_seq
        messages = [await js.get_msg("orders", seq) for seq in range(1, last + 1)]
        return [int(each.data or b"") for each in messages]
