"""Handlers of typed payloads, which only this project has."""

from typing import Any

import msgspec

from contestants.work import tally


class MessageJson:
    """Parse with the engine's parser."""

    async def handle_message(self, message: Any) -> None:
        message.json()
        tally.handled += 1


class Dict:
    """Let the annotation parse."""

    async def handle_message(self, payload: dict[str, Any]) -> None:
        tally.handled += 1


class Order(msgspec.Struct):
    """The payload of workload A."""

    id: int
    name: str


class Decoded:
    """Let msgspec parse and validate."""

    async def handle_message(self, order: Order) -> None:
        tally.handled += 1


TYPED = {"message json": MessageJson, "dict": Dict, "struct": Decoded}
