"""Who competes, and with which settings."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to consume. `module` is a module of `contestants`, or a verb of the native binary."""

    name: str
    module: str
    environment: str
    kind: str = "pull"
    loop: str = "asyncio"
    options: dict[str, Any] = field(default_factory=dict)
    share: float = 1.0
    """Which part of a backlog it gets: the slow ones get less, or a round would take minutes."""
    taskiq: bool = False
    """Whether its messages are taskiq's own."""
    work: str = ""
    """Its handler, where it is another than the workload's."""
    subjects: int = 0
    """How many subjects, where it is another number than the workload's."""
    processes: int = 1
    limit: str = ""
    """The name of the contestant it is compared with; else native Rust, the same way."""

    @property
    def compared_with(self) -> str:
        """The name of the contestant whose rate is its limit."""
        return self.limit or f"async-nats {self.kind} (Rust)"


def _ours(name: str, **rest: Any) -> Contestant:
    return Contestant(name=name, **{"module": "ours", "environment": "project", **rest})


def _peer(name: str, module: str, **rest: Any) -> Contestant:
    return Contestant(name=name, module=module, environment="peers", loop="uvloop", **rest)


def _rust(name: str, module: str, kind: str, **rest: Any) -> Contestant:
    return Contestant(name=name, module=module, environment="native", kind=kind, **rest)


_DEF = {"def": True}
LIMITS = [
    _rust("async-nats pull (Rust)", "consume", "pull"),
    _rust("async-nats push (Rust)", "consume", "push"),
]
ENGINE = [
    _rust("our engine pull (Rust)", "engine", "pull"),
    _rust("our engine push (Rust)", "engine", "push"),
]
OURS = [_ours("ours pull"), _ours("ours push", kind="push")]
OURS_PUSH_100 = _ours("ours push, concurrency 100", kind="push", options={"concurrency": 100})
OURS_VARIED = [
    OURS_PUSH_100,
    _ours("ours pull, uvloop", loop="uvloop"),
    _ours("ours pull, newest Python", environment="newest"),
    _ours("ours push, newest Python", environment="newest", kind="push"),
]
OURS_DEF = [
    _ours("ours pull, def", options=_DEF),
    _ours("ours push, def", kind="push", options=_DEF),
]
OXNATS = [
    _peer("oxnats pull", "oxnats", share=0.5),
    _peer("oxnats push", "oxnats", kind="push"),
]
NATS_PY = [
    _peer("nats-py pull", "nats_py", share=0.5),
    _peer("nats-py push", "nats_py", kind="push"),
]
OTHERS = [
    Contestant(
        name="nats-jetstream pull",
        module="nats_jetstream",
        environment="newest",
        loop="uvloop",
        share=0.25,
    ),
    _peer("natsrpy pull", "natsrpy", share=0.25),
    _peer("natsrpy push", "natsrpy", kind="push", share=0.1),
    _peer("FastStream pull", "faststream", share=0.1),
    _peer("FastStream push", "faststream", kind="push", share=0.1),
    _peer("taskiq-nats pull", "taskiq", share=0.1, taskiq=True),
    _peer("taskiq-nats push", "taskiq", kind="push", share=0.1, taskiq=True),
]
BLOCKING = [
    _ours("ours pull, def, no-op", work="nothing", options=_DEF),
    _ours("ours push, def, no-op", work="nothing", kind="push", options=_DEF),
    _ours("ours pull, async def with sync_to_async", work="through"),
    _peer("oxnats pull, async def with sync_to_async", "oxnats", work="through", share=0.5),
    _ours("ours pull, def, one insert", work="insert", options=_DEF, share=0.25),
    _ours("ours push, def, one insert", work="insert", kind="push", options=_DEF, share=0.25),
    _ours("ours pull, async def, one insert", work="insert", share=0.25),
]
WAITING = [
    _ours("ours pull, concurrency 10", options={"concurrency": 10}, share=0.2),
    OURS_PUSH_100,
]
ROUTING = [
    _ours("ours pull, 4 subjects", subjects=4),
    _ours("ours pull, 400 subjects", subjects=400, limit="ours pull, 4 subjects"),
]
_TWO = {"processes": 2, "limit": "ours pull"}
PROCESSES = [
    _rust("async-nats pull (Rust), 2 processes", "consume", "pull", processes=2),
    _ours("ours pull, 2 processes", **_TWO),
]
_SEQUENTIAL = "async-nats in turn (Rust)"
_PIPELINED = "async-nats pipelined (Rust)"

PUBLISHERS = [
    _rust(_SEQUENTIAL, "sequential", "", share=0.1, limit=_SEQUENTIAL),
    _rust(_PIPELINED, "pipelined", "", limit=_PIPELINED),
    _ours("ours, publish()", module="publish_ours", work="in turn", share=0.1, limit=_SEQUENTIAL),
    _ours(
        "ours, client in turn", module="publish_ours", work="client", share=0.1, limit=_SEQUENTIAL
    ),
    _ours(
        "ours, apublish(), 100 at once",
        module="publish_ours",
        work="apublish",
        share=0.5,
        limit=_PIPELINED,
    ),
    _ours("ours, publish_many()", module="publish_ours", work="many", limit=_PIPELINED),
    _peer("nats-py in turn", "publish_nats_py", work="in turn", share=0.1, limit=_SEQUENTIAL),
    _peer("nats-py publish_async", "publish_nats_py", work="async", share=0.5, limit=_PIPELINED),
]
