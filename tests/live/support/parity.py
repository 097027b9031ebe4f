"""One script, two clients: what nats-py does with it, ours does too."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, is_dataclass
from typing import Any

import nats
import nats.errors

from nats_consumer import get_nats_client
from tests.servers import NatsServer

# It takes a client and a name that nobody else uses; what it returns is compared.
Script = Callable[[Any, str], Awaitable[Any]]


async def differences(
    run: Script, nats_server: NatsServer, fresh: Callable[[str], str]
) -> list[str]:
    """Return the script's results that differ between our client and nats-py."""
    theirs_name, ours_name = fresh("one"), fresh("two")
    theirs = await nats.connect(nats_server.url)
    try:
        expected = await run(theirs, theirs_name)
    finally:
        await theirs.close()
    async with await get_nats_client() as ours:
        result = await run(ours, ours_name)
    assert result is not None, "a script returns what it saw"
    return list(_differences(named(result, ours_name), named(expected, theirs_name)))


def fields(value: object, *names: str) -> dict[str, Any]:
    """Attributes, by name."""
    return {name: getattr(value, name) for name in names}


async def raised(awaitable: Awaitable[Any]) -> dict[str, Any]:
    """Which of nats-py's classes catch what is raised, and with which attributes."""
    try:
        await awaitable
    except nats.errors.Error as error:
        kinds = [
            kind.__name__ for kind in type(error).__mro__ if kind.__module__.startswith("nats.")
        ]
        return {
            "kinds": [kind for kind in kinds if kind != "Error"],
            "code": getattr(error, "code", None),
            "err_code": getattr(error, "err_code", None),
            "is_timeout": isinstance(error, TimeoutError),
        }
    except Exception as error:
        return {"other": type(error).__name__}
    return {"raised": "nothing"}


async def call(method: Callable[[], Awaitable[Any]]) -> None:
    """Settling methods of ours act, and raise, when they are called, also without an await."""
    await method()


def named(value: Any, name: str) -> Any:
    """The value with the test's own name replaced, so that two can be compared."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {named(key, name): named(each, name) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [named(each, name) for each in value]
    if isinstance(value, str):
        return str(value).replace(name, "NAME")
    return value


def _differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in theirs.keys() | ours.keys():
            yield from _differences(ours.get(key), theirs.get(key), f"{path}/{key}")
    elif path.endswith("/kinds") and ours is not None and theirs is not None:
        # More of their classes may catch ours, FetchTimeoutError for example.
        if not set(theirs) <= set(ours):
            yield f"{path}: {ours} is not caught by all of {theirs}"
    elif ours != theirs:
        yield f"{path}: {ours!r} here, {theirs!r} there"
