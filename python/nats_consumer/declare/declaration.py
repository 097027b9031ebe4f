"""Declaration: the attributes of a consumer class, as the rest of the package reads them."""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Protocol, TypeAlias

from nats_consumer.message import Message
from nats_consumer.outcomes import ErrorAckBehavior


class Declaration(Protocol):
    """A consumer's attributes. `NatsConsumer` has them with their defaults and their meaning."""

    kind: ClassVar[str]

    connection: str
    stream_name: str | None
    subjects: Sequence[str]
    filter_subject: str | type | None
    filter_subjects: Sequence[str | type]
    durable_name: str | None
    deliver_policy: str
    start_sequence: int | None
    start_time: datetime | None

    max_retries: int
    initial_retry_delay: float
    max_retry_delay: float
    backoff_factor: float
    max_deliver: int | None
    backoff_delays: Sequence[float] | None
    handle_error_ack_behavior: ErrorAckBehavior
    invalid_ack_behavior: ErrorAckBehavior

    concurrency: int | None
    batch_size: int
    fetch_timeout: float
    ack_wait: float
    max_ack_pending: int | None
    handler_timeout: float | None
    ordered: bool
    max_batch: int | None
    max_batch_wait: float
    max_batch_bytes: int
    common_errors: tuple[type[BaseException], ...]
    idempotent: bool | str
    ephemeral: bool

    @property
    def consumer_name(self) -> str:
        """The name of the class."""

    def get_durable_name(self) -> str:
        """The durable."""

    def get_filter_subject(self) -> str:
        """The subject, or the first of several."""

    def message_identity(self, message: Message) -> str:
        """The identity of the message among those with its subject."""


# A consumer class, or an instance of it.
Declared: TypeAlias = type[Declaration] | Declaration


def class_of(consumer: Declared) -> type[Declaration]:
    """The class itself, or that of an instance."""
    return consumer if isinstance(consumer, type) else type(consumer)


def label(consumer: type) -> str:
    """The class with its module, so that two classes of one name can be told apart."""
    return f"{consumer.__module__}.{consumer.__qualname__}"


def project_classes(consumer: Declared) -> list[type]:
    """The consumer's class and its bases, without the classes of this package."""
    ours = "nats_consumer.consumer"
    return [cls for cls in class_of(consumer).__mro__ if cls.__module__ != ours]


def is_overridden(consumer: Declared, method: str) -> bool:
    """Whether the project overrides this method of NatsConsumer."""
    return any(method in vars(cls) for cls in project_classes(consumer))


def declared(consumer: Declared, names: Sequence[str]) -> list[str]:
    """Which of `names` the project set itself, on the class, a base of it or the instance."""
    namespaces = [vars(consumer), *map(vars, project_classes(consumer))]
    return [name for name in names if any(space.get(name) is not None for space in namespaces)]
