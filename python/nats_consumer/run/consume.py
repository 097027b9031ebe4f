"""Start the engine for one consumer."""

import asyncio
from typing import TYPE_CHECKING

from nats_consumer import _native
from nats_consumer.connect.args import connect_options
from nats_consumer.connect.resolve import resolve
from nats_consumer.declare.options import ConsumerOptions
from nats_consumer.exceptions import StreamMismatch, StreamNotFound

if TYPE_CHECKING:
    from .dispatch import Dispatch


async def consume(options: ConsumerOptions, dispatch: "Dispatch") -> _native.Consumption:
    """Connect and bind the durable, or make it; no message is taken until `dispatch` starts. Raises
    ConfigurationError, Unreachable, and StreamNotFound or StreamMismatch with the remedy."""
    connect = await asyncio.to_thread(resolve, connect_options(using=options.connection))
    try:
        return await _native.consume(
            connect,
            options,
            dispatch.handle,
            dispatch.failed,
            dispatch.log,
            dispatch.keeps_time,
            dispatch.in_threads,
        )
    except StreamNotFound as error:
        raise StreamNotFound(
            f"{error} Create it: return operations.CreateStream(name={options.stream!r}, ...) from "
            "setup() and run with --setup."
        ) from error
    except StreamMismatch as error:
        raise StreamMismatch(
            f"{error} To delete it with its position, once: operations.DeleteConsumer("
            f"{options.stream!r}, {options.durable!r}) in a migration."
        ) from error
