"""Which servers keep a stream or a consumer."""

from dataclasses import dataclass
from datetime import datetime

from .wire import Struct, moment, structs


@dataclass(frozen=True, kw_only=True)
class PeerInfo(Struct):
    """A replica, and how far behind it is. `active` is nanoseconds since it was heard of."""

    name: str | None = None
    current: bool | None = None
    offline: bool | None = None
    active: int | None = None
    lag: int | None = None


@dataclass(frozen=True, kw_only=True)
class ClusterInfo(Struct):
    """The leader and its replicas."""

    leader: str | None = None
    name: str | None = None
    replicas: list[PeerInfo] | None = structs(PeerInfo)
    raft_group: str | None = None
    leader_since: datetime | None = moment()
    traffic_acc: str | None = None
