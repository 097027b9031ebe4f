"""The JetStream API's own structs: configurations and what the server answers.

Times are seconds here and nanoseconds on the wire. Every enum is a `str`, so a plain string does
as well. A field that is None is not sent."""

from .account import AccountInfo, AccountLimits, APIStats, Tier
from .cluster import ClusterInfo, PeerInfo
from .consumer import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    ConsumerPause,
    ConsumerReset,
    DeliverPolicy,
    ReplayPolicy,
    SequenceInfo,
)
from .message import Header, PubAck, RawStreamMsg
from .source import (
    ExternalStream,
    RePublish,
    StreamConsumerSource,
    StreamSource,
    StreamSourceInfo,
    SubjectTransform,
)
from .stream import (
    DiscardPolicy,
    LostStreamData,
    PersistMode,
    Placement,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamConfig,
    StreamConsumerLimits,
    StreamInfo,
    StreamState,
)

__all__ = [
    "APIStats",
    "AccountInfo",
    "AccountLimits",
    "AckPolicy",
    "ClusterInfo",
    "ConsumerConfig",
    "ConsumerInfo",
    "ConsumerPause",
    "ConsumerReset",
    "DeliverPolicy",
    "DiscardPolicy",
    "ExternalStream",
    "Header",
    "LostStreamData",
    "PeerInfo",
    "PersistMode",
    "Placement",
    "PubAck",
    "RawStreamMsg",
    "RePublish",
    "ReplayPolicy",
    "RetentionPolicy",
    "SequenceInfo",
    "StorageType",
    "StoreCompression",
    "StreamConfig",
    "StreamConsumerLimits",
    "StreamConsumerSource",
    "StreamInfo",
    "StreamSource",
    "StreamSourceInfo",
    "StreamState",
    "SubjectTransform",
    "Tier",
]
