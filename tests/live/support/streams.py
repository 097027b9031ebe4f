"""Streams on the server that the settings name."""

import asyncio
from typing import Any

from nats_consumer import get_nats_client


def add_stream(name: str, **config: Any) -> None:
    """Create a stream. Its subjects are all below its name, unless `config` has others."""

    async def add() -> None:
        async with await get_nats_client() as client:
            await client.jetstream().add_stream(name=name, **{"subjects": [f"{name}.>"], **config})

    asyncio.run(add())
