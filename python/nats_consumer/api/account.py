"""Limits and usage of an account."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from .wire import Struct, struct


@dataclass(frozen=True, kw_only=True)
class AccountLimits(Struct):
    """Limits of an account; -1 is without limit."""

    max_memory: int
    max_storage: int
    max_streams: int
    max_consumers: int
    max_ack_pending: int
    memory_max_stream_bytes: int
    storage_max_stream_bytes: int
    max_bytes_required: bool


@dataclass(frozen=True, kw_only=True)
class Tier(Struct):
    """Usage of one class of replicas."""

    memory: int
    storage: int
    streams: int
    consumers: int
    limits: AccountLimits = struct(AccountLimits)


@dataclass(frozen=True, kw_only=True)
class APIStats(Struct):
    """How often the API was used, and how often it refused."""

    total: int
    errors: int
    level: int | None = None


@dataclass(frozen=True, kw_only=True)
class AccountInfo(Struct):
    """Usage of an account."""

    memory: int
    storage: int
    streams: int
    consumers: int
    limits: AccountLimits = struct(AccountLimits)
    api: APIStats = struct(APIStats)
    domain: str | None = None
    tiers: dict[str, Tier] | None = None

    @classmethod
    def from_response(cls, wire: Mapping[str, Any]) -> Self:
        """Read the server's answer to INFO."""
        tiers = {name: Tier.from_response(tier) for name, tier in (wire.get("tiers") or {}).items()}
        return replace(super().from_response(wire), tiers=tiers or None)
