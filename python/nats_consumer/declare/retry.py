"""A consumer's retry attributes, of either family, become one policy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nats_consumer.exceptions import ConfigurationError
from nats_consumer.validation import number, whole

from .declaration import Declared, declared

_COUNTED_BY_RETRIES = ("max_retries", "initial_retry_delay", "max_retry_delay", "backoff_factor")
_COUNTED_BY_DELIVERIES = ("max_deliver", "backoff_delays")
_DEFAULT_MAX_DELIVER = 5


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """The number of attempts of a message and the delays between them, in seconds."""

    max_attempts: int = 4
    initial_delay: float = 1.0
    max_delay: float = 60.0
    factor: float = 2.0
    delays: Sequence[float] = ()

    def delay_after(self, attempt: int) -> float:
        """The wait after the failed `attempt` (1-based)."""
        if self.delays:
            return self.delays[min(attempt, len(self.delays)) - 1]
        try:
            return min(self.initial_delay * self.factor ** (attempt - 1), self.max_delay)
        except OverflowError:
            return self.max_delay


def retry_policy(consumer: Declared) -> RetryPolicy:
    """The policy that the attributes describe. Raises ConfigurationError if both families are
    used, or a value is wrong."""
    by_deliveries = declared(consumer, _COUNTED_BY_DELIVERIES)
    by_retries = declared(consumer, _COUNTED_BY_RETRIES)
    if by_deliveries and by_retries:
        raise ConfigurationError(
            f"it mixes two ways to describe retries: {', '.join(by_retries)} and "
            f"{', '.join(by_deliveries)}. Keep one: max_retries counts the retries, max_deliver "
            "all attempts."
        )
    if by_deliveries:
        return _policy_by_deliveries(consumer)
    return RetryPolicy(
        max_attempts=1 + whole(consumer.max_retries, "max_retries"),
        initial_delay=number(consumer.initial_retry_delay, "initial_retry_delay"),
        max_delay=number(consumer.max_retry_delay, "max_retry_delay"),
        factor=number(consumer.backoff_factor, "backoff_factor"),
    )


def _policy_by_deliveries(consumer: Declared) -> RetryPolicy:
    limit = _DEFAULT_MAX_DELIVER if consumer.max_deliver is None else consumer.max_deliver
    given: object = consumer.backoff_delays or ()
    if not isinstance(given, Iterable):
        raise ConfigurationError(f"backoff_delays must be a list of seconds, not {given!r}.")
    delays = [number(delay, "each of backoff_delays") for delay in given]
    return RetryPolicy(
        max_attempts=whole(limit, "max_deliver", least=1),
        max_delay=delays[-1] if delays else RetryPolicy.max_delay,
        delays=delays,
    )
