"""Return values that stand for work that nobody does."""

from concurrent.futures import Future
from inspect import isasyncgen, isawaitable, iscoroutine, isgenerator


def check_finished(value: object, name: str = "handle_message") -> None:
    """Raise TypeError if `value`, which the method `name` returned, is work that nobody waits for:
    a generator, a future, a coroutine or another awaitable. What `message.ack()` and its kind
    return is done already."""
    if isgenerator(value) or isasyncgen(value):
        raise TypeError(
            f"{name} returned a generator, so none of its code ran: it contains `yield`. "
            "Remove the `yield`."
        )
    if isinstance(value, Future):
        raise TypeError(
            f"{name} returned a future of a thread pool that is not waited for: write "
            "`return future.result()`, or `await asyncio.wrap_future(future)` in an `async def`."
        )
    if isawaitable(value) and not getattr(value, "is_done_already", False):
        kind = "coroutine" if iscoroutine(value) else type(value).__name__.lstrip("_")
        raise TypeError(f"{name} returned a {kind} that is not awaited: write `return await ...`.")
