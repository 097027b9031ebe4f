"""Failures that say nothing about their message: blocking code did not begin, because that of other
handlers held its thread."""

from . import in_thread_lane, not_started
from .own_thread import was_blocked


def is_without_evidence(error: BaseException) -> bool:
    """Whether the error of the handler that this Task runs, or of one that has just ended, is such
    a failure."""
    if not_started(error) is not None:
        return True
    # In a thread lane, the handler began in its own thread.
    return isinstance(error, TimeoutError) and not in_thread_lane() and was_blocked()
