"""A worker with an inbox is killed at each of its steps."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nats_consumer.client import Client, get_nats_client
from tests.faults.support.nodes import Node

SCRIPT = Path(__file__).parent / "support/inbox_worker.py"
ROOT = Path(__file__).parents[2]
KILLS = 50
MESSAGES = 100
pytestmark = pytest.mark.timeout(600)


def effects(url: str, database: dict[str, Any], seed: int, **options: Any) -> Counter[int]:
    """How many effects each message had after all the kills."""
    whole = {
        "database": database,
        "servers": [url],
        "stream": "orders",
        "seed": seed,
        "idempotent": True,
        **options,
    }
    command = [sys.executable, str(SCRIPT), json.dumps(whole)]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
    return Counter({int(number): count for number, count in json.loads(done.stdout).items()})


@pytest.mark.parametrize("point", ["taken", "inserted", "handled", "committed", "acked"])
def test_each_effect_happens_once_although_the_worker_is_killed(
    node: Node, any_database: dict[str, Any], point: str, seed: int
) -> None:
    asyncio.run(publish_all(node.url))
    once = Counter(range(MESSAGES))
    assert effects(node.url, any_database, seed, point=point, kills=KILLS) == once
    assert asyncio.run(booked(node.url)) == once


def test_without_an_inbox_a_worker_that_is_killed_after_its_commit_has_an_effect_twice(
    node: Node, tmp_path: Path, seed: int
) -> None:
    asyncio.run(publish_all(node.url))
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "shop.sqlite3"),
    }
    found = effects(node.url, database, seed, point="committed", kills=5, idempotent=False)
    assert sum(found.values()) == MESSAGES + 5
    assert len(found) == MESSAGES


async def client_of(url: str) -> Client:
    return await get_nats_client(servers=[url])


async def publish_all(url: str) -> None:
    async with await client_of(url) as client:
        js = client.jetstream()
        await js.add_stream(name="orders", subjects=["orders.>"])
        for number in range(MESSAGES):
            await js.publish("orders.paid", b"%d" % number)


async def booked(url: str) -> Counter[int]:
    """How many messages the outbox published for each one."""
    async with await client_of(url) as client:
        js = client.jetstream()
        last = (await js.stream_info("orders")).state.last_seq
        stored = [await js.get_msg("orders", seq) for seq in range(1, last + 1)]
    return Counter(int(each.data or b"") for each in stored if each.subject == "orders.booked")
