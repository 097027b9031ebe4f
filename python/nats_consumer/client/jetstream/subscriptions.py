"""Subscriptions to a stream: pull and push consumers."""

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from nats_consumer.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats_consumer.client.subscription import Callback, Limits
from nats_consumer.exceptions import ConfigurationError, ConsumerGone, InvalidMessage
from nats_consumer.names import check_name, subject_problem

from .durables import Durables
from .pull import PullSubscription
from .push import PushSubscription, acknowledging
from .streams import Streams

if TYPE_CHECKING:
    from nats_consumer._native import Subscription as Native

_PENDING_MESSAGES = 512 * 1024
_PENDING_BYTES = 256 * 1024 * 1024
_HEARTBEAT_SECONDS = 5.0
_NOT_ACKNOWLEDGED = (AckPolicy.NONE, AckPolicy.FLOW_CONTROL)


class OpenSubscription(Protocol):
    """How a client makes a subscription of what `begin` opens."""

    def __call__(
        self,
        begin: "Callable[[], Awaitable[Native]]",
        *,
        subject: str,
        queue: str = "",
        callback: Callback | None,
        kind: type[PushSubscription],
    ) -> Awaitable[PushSubscription]: ...


class Subscriptions(Streams, Durables):
    """The part of JetStream that concerns subscriptions."""

    _open: OpenSubscription

    async def pull_subscribe(
        self,
        subject: str,
        durable: str | None = None,
        stream: str | None = None,
        config: ConsumerConfig | None = None,
        pending_msgs_limit: int = _PENDING_MESSAGES,
        pending_bytes_limit: int = _PENDING_BYTES,
        inbox_prefix: bytes | None = None,
    ) -> PullSubscription:
        """A consumer of `subject` to fetch from. One of the name `durable` that exists is used as
        it is; otherwise one is created with `config`, and without a name it is forgotten when it
        is not used. Raises StreamNotFound and ApiError."""
        stream = stream or await self.find_stream_name_by_subject(subject)
        if not (durable and await self._exists(stream, durable)):
            config = _for_subject(ConsumerConfig.coerce(config or {}), subject)
            name = durable or config.name or self._connection.new_inbox().rpartition(".")[2]
            config = config.evolve(name=name, durable_name=durable or config.durable_name)
            durable = (await self.add_consumer(stream, config)).name
        return await self.pull_subscribe_bind(
            durable, stream, inbox_prefix, pending_msgs_limit, pending_bytes_limit
        )

    async def pull_subscribe_bind(
        self,
        consumer: str | None = None,
        stream: str | None = None,
        inbox_prefix: bytes | None = None,  # noqa: ARG002 - connect_args["inbox_prefix"] decides
        pending_msgs_limit: int = _PENDING_MESSAGES,
        pending_bytes_limit: int = _PENDING_BYTES,
        name: str | None = None,
        durable: str | None = None,
    ) -> PullSubscription:
        """A consumer that exists, to fetch from; `name` and `durable` are other words for
        `consumer`."""
        consumer = durable or name or consumer
        if not stream or not consumer:
            raise ValueError("pull_subscribe_bind() needs a stream and a consumer.")
        limits = Limits.of(pending_msgs_limit, pending_bytes_limit)
        native = await self._connection.pull(self._prefix, stream, consumer, limits)
        return PullSubscription(native, self, stream, consumer)

    async def subscribe(
        self,
        subject: str,
        queue: str | None = None,
        cb: Callback | None = None,
        durable: str | None = None,
        stream: str | None = None,
        config: ConsumerConfig | None = None,
        manual_ack: bool = False,
        ordered_consumer: bool = False,
        idle_heartbeat: float | None = None,
        flow_control: bool = False,
        pending_msgs_limit: int = _PENDING_MESSAGES,
        pending_bytes_limit: int = _PENDING_BYTES,
        deliver_policy: DeliverPolicy | str | None = None,
        headers_only: bool | None = None,
        inactive_threshold: float | None = None,
    ) -> PushSubscription:
        """A consumer that sends what it has for `subject`. One of the name `durable` (or `queue`)
        that exists is used as it is; otherwise one is created. After `cb` has returned the message
        is acknowledged, unless `manual_ack`; without `cb`, acknowledge each.

        With `ordered_consumer`, every message of the stream comes once and in order, and none is
        acknowledged. The client recreates its consumer on the server behind the last
        message when one is missing, when no heartbeat comes (every `idle_heartbeat` seconds, 5
        without it), and after a lost connection.

        Raises StreamNotFound, ApiError, and ConfigurationError if the consumer that exists cannot
        be used like this."""
        if queue and durable and durable != queue:
            raise ConfigurationError(
                f"A queue is the name of its durable: give queue={queue!r} or durable={durable!r}."
            )
        durable = durable or queue
        stream = stream or await self.find_stream_name_by_subject(subject)
        wanted = _for_subject(ConsumerConfig.coerce(config or {}), subject)
        given = {
            "headers_only": headers_only,
            "deliver_policy": deliver_policy,
            "inactive_threshold": inactive_threshold,
            "idle_heartbeat": idle_heartbeat,
        }
        wanted = wanted.evolve(**{name: value for name, value in given.items() if value})
        limits = Limits.of(pending_msgs_limit, pending_bytes_limit)
        if ordered_consumer:
            return await self._subscribe_in_order(
                subject,
                stream,
                wanted.evolve(durable_name=durable or wanted.durable_name),
                cb,
                limits,
            )
        info = await self._present(stream, durable, queue)
        if info is None:
            wanted = wanted.evolve(
                durable_name=wanted.durable_name or durable,
                deliver_group=wanted.deliver_group or queue,
                deliver_subject=wanted.deliver_subject or self._connection.new_inbox(),
                flow_control=flow_control or wanted.flow_control,
            )
            info = await self.add_consumer(stream, wanted)
        return await self.subscribe_bind(
            stream,
            info.config,
            info.name,
            cb,
            manual_ack,
            pending_msgs_limit=pending_msgs_limit,
            pending_bytes_limit=pending_bytes_limit,
        )

    async def subscribe_bind(
        self,
        stream: str,
        config: ConsumerConfig,
        consumer: str,
        cb: Callback | None = None,
        manual_ack: bool = False,
        ordered_consumer: bool = False,
        pending_msgs_limit: int = _PENDING_MESSAGES,
        pending_bytes_limit: int = _PENDING_BYTES,
    ) -> PushSubscription:
        """Subscribe to a consumer that exists and is configured as `config` says."""
        if ordered_consumer or not config.deliver_subject:
            raise ConfigurationError(
                f"Consumer {consumer!r} has no deliver_subject: use pull_subscribe_bind(). To read "
                "in order, use subscribe(ordered_consumer=True), which has its own consumer."
            )
        if cb and not manual_ack and config.ack_policy not in _NOT_ACKNOWLEDGED:
            cb = acknowledging(cb)
        subject, queue = config.deliver_subject, config.deliver_group or ""
        limits = Limits.of(pending_msgs_limit, pending_bytes_limit)
        subscription = await self._open(
            lambda: self._connection.subscribe(subject, queue or None, limits, True),
            subject=subject,
            queue=queue,
            callback=cb,
            kind=PushSubscription,
        )
        subscription.bind(self, stream, consumer)
        return subscription

    async def _subscribe_in_order(
        self,
        subject: str,
        stream: str,
        config: ConsumerConfig,
        callback: Callback | None,
        limits: Limits,
    ) -> PushSubscription:
        if config.durable_name or config.deliver_group or config.deliver_subject:
            raise ConfigurationError(
                "An ordered consumer has no durable name, no queue and no deliver_subject: it is "
                "recreated when a message is missing. Leave them out."
            )
        check_name(stream, "name of a stream")
        wire = json.dumps(config.evolve(name=None).as_dict()).encode()
        heartbeat = config.idle_heartbeat or _HEARTBEAT_SECONDS
        subscription = await self._open(
            lambda: self._connection.subscribe_in_order(
                self._prefix, stream, wire, heartbeat, limits
            ),
            subject=subject,
            callback=callback,
            kind=PushSubscription,
        )
        subscription.bind(self, stream, "")
        return subscription

    async def _exists(self, stream: str, consumer: str) -> bool:
        try:
            await self.consumer_info(stream, consumer)
        except ConsumerGone:
            return False
        return True

    async def _present(
        self, stream: str, durable: str | None, queue: str | None
    ) -> ConsumerInfo | None:
        """The durable, if it exists and can be subscribed to like this."""
        if not durable:
            return None
        try:
            info = await self.consumer_info(stream, durable)
        except ConsumerGone:
            return None
        group = info.config.deliver_group
        if (group or None) != (queue or None):
            raise ConfigurationError(
                f"Consumer {durable!r} delivers to the queue {group!r}, not {queue!r}."
            )
        if info.push_bound and not group:
            raise ConfigurationError(
                f"Consumer {durable!r} has a subscriber already. Give both a queue, or use "
                "pull_subscribe()."
            )
        return info


def _for_subject(config: ConsumerConfig, subject: str) -> ConsumerConfig:
    if subject and (problem := subject_problem(subject)):
        raise InvalidMessage(f"Cannot subscribe to that: {problem}.")
    return config if config.filter_subjects else config.evolve(filter_subject=subject)
