"""The contestants of each workload, with their settings."""

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
    beside: bool = False
    """Whether slow handlers have a backlog of their own in the same worker."""
    consumes: bool = True
    """Whether it has messages at all."""
    needs: str = ""
    """A server that it needs: "postgresql" or "redis"."""
    limit: str = ""
    """The name of the contestant it is compared with; else native Rust, the same way."""

    @property
    def compared_with(self) -> str:
        """The name of the contestant whose rate is its limit."""
        return self.limit or f"async-nats {self.kind} (Rust)"


def _ours(name: str, **rest: Any) -> Contestant:
    return Contestant(name=name, **{"module": "ours", "environment": "project", **rest})


def _peer(name: str, module: str, **rest: Any) -> Contestant:
    return Contestant(name=name, module=module, environment="peers", **{"loop": "uvloop", **rest})


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
    _ours("ours push, uvloop", kind="push", loop="uvloop"),
    _ours("ours pull, newest Python", environment="newest"),
    _ours("ours push, newest Python", environment="newest", kind="push"),
]
OURS_DEF = [
    _ours("ours pull, def", options=_DEF),
    _ours("ours push, def", kind="push", options=_DEF),
]
OURS_TYPED = [
    _ours("ours pull, a msgspec Struct", work="struct"),
    _ours("ours push, a msgspec Struct", kind="push", work="struct"),
]
OXNATS = [
    _peer("oxnats pull", "oxnats", share=0.5),
    _peer("oxnats push", "oxnats", kind="push"),
]
OXNATS_ON_ASYNCIO = [
    _peer("oxnats pull, asyncio", "oxnats", loop="asyncio", share=0.5),
    _peer("oxnats push, asyncio", "oxnats", kind="push", loop="asyncio", share=0.5),
]
NATS_PY = [
    _peer("nats-py pull", "nats_py", share=0.5),
    _peer("nats-py push", "nats_py", kind="push", share=0.5),
]
OTHERS = [
    Contestant(
        name="nats-jetstream pull",
        module="nats_jetstream",
        environment="newest",
        loop="uvloop",
        share=0.5,
    ),
    _peer("natsrpy pull", "natsrpy", share=0.2),
    _peer("natsrpy push", "natsrpy", kind="push", share=0.1),
    _peer("FastStream pull", "faststream", share=0.05),
    _peer("FastStream push", "faststream", kind="push", share=0.05),
    _peer("taskiq-nats pull", "taskiq", share=0.05, taskiq=True),
    _peer("taskiq-nats push", "taskiq", kind="push", share=0.05, taskiq=True),
    _peer("Celery on Redis, 2 processes", "celery", share=0.05, needs="redis"),
]
_THROUGH = "ours pull, async def with sync_to_async"
_POSTGRES = {"work": "insert", "share": 0.25, "needs": "postgresql"}
_SQLITE = {"work": "insert", "share": 0.25}
_ALONE = "ours pull, async def, one insert into"
BLOCKING = [
    _ours(_THROUGH, work="through", share=0.5, limit=_THROUGH),
    _peer(
        "oxnats pull, async def with sync_to_async",
        "oxnats",
        work="through",
        share=0.25,
        limit=_THROUGH,
    ),
    _ours("ours pull, def, no-op", options=_DEF, limit=_THROUGH),
    _ours("ours push, def, no-op", kind="push", options=_DEF, limit=_THROUGH),
    _ours(f"{_ALONE} SQLite", limit=f"{_ALONE} SQLite", **_SQLITE),
    _ours(
        "ours pull, def, one insert into SQLite", options=_DEF, limit=f"{_ALONE} SQLite", **_SQLITE
    ),
    _ours(
        "ours push, def, one insert into SQLite",
        kind="push",
        options=_DEF,
        limit=f"{_ALONE} SQLite",
        **_SQLITE,
    ),
    _ours(f"{_ALONE} PostgreSQL", limit=f"{_ALONE} PostgreSQL", **_POSTGRES),
    _ours(
        f"{_ALONE} PostgreSQL, concurrency 10",
        limit=f"{_ALONE} PostgreSQL",
        **_POSTGRES,
        options={"concurrency": 10},
    ),
    _ours(
        "ours pull, def, one insert into PostgreSQL",
        options=_DEF,
        limit=f"{_ALONE} PostgreSQL",
        **_POSTGRES,
    ),
    _ours(
        "ours push, def, one insert into PostgreSQL",
        kind="push",
        options=_DEF,
        limit=f"{_ALONE} PostgreSQL",
        **_POSTGRES,
    ),
]
_TEN = {"options": {"concurrency": 10}, "share": 0.2}
_RUST_TEN = "async-nats pull (Rust), concurrency 10"
_SLEEPING = "asyncio alone, no messages"
_NO_MESSAGES = {"module": "alone", "consumes": False}
WAITING = [
    _ours(_SLEEPING, limit=_SLEEPING, **_NO_MESSAGES),
    _ours("uvloop alone, no messages", loop="uvloop", limit=_SLEEPING, **_NO_MESSAGES),
    *LIMITS[:1],
    *OURS[:1],
    OURS_PUSH_100,
    OURS_VARIED[1],
    _rust(_RUST_TEN, "consume", "pull", limit=_RUST_TEN, **_TEN),
    _ours("ours pull, concurrency 10", limit=_RUST_TEN, **_TEN),
    _peer("oxnats pull", "oxnats", share=0.4),
    NATS_PY[0],
]
BESIDE = ", slow handlers beside"
_TIMED_RUST = [
    _rust(f"async-nats {kind} (Rust){BESIDE}", "consume", kind, beside=True)
    for kind in ("pull", "push")
]
TIMED = [
    *LIMITS,
    *OURS,
    _peer("oxnats pull", "oxnats"),
    _peer("oxnats push", "oxnats", kind="push"),
    _peer("nats-py push", "nats_py", kind="push"),
    *_TIMED_RUST,
    _ours(f"ours pull{BESIDE}", beside=True, limit=_TIMED_RUST[0].name),
    _ours(f"ours push{BESIDE}", kind="push", beside=True, limit=_TIMED_RUST[1].name),
    _peer(f"oxnats pull{BESIDE}", "oxnats", beside=True, limit=_TIMED_RUST[0].name),
]
_FEW = "ours pull, 4 subjects"
ROUTING = [
    _ours(_FEW, subjects=4, limit=_FEW),
    _ours("ours pull, 400 subjects", subjects=400, limit=_FEW),
]
PROCESSES = [
    LIMITS[0],
    _ours("ours pull", limit="ours pull"),
    _rust("async-nats pull (Rust), 2 processes", "consume", "pull", processes=2),
    _ours("ours pull, 2 processes", processes=2, limit="ours pull"),
]
# Its own 1,000 messages of 100 KiB are more than the server lets a client lag behind; it has no
# option for that, but takes a durable that exists as it is.
_FEWER = {"max_ack_pending": 300}
LARGE = [
    *LIMITS,
    *ENGINE,
    *OURS,
    _peer("oxnats pull", "oxnats"),
    _peer("oxnats push, max_ack_pending 300", "oxnats", kind="push", options=_FEWER),
]
HUGE = [*LIMITS, OURS[0], OURS_PUSH_100]
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
_TWO_INSERTS = "two inserts, 32 threads"
_ROWS = {"module": "outbox_ours", "needs": "postgresql"}
OUTBOX = [
    _ours(_TWO_INSERTS, work="plain", share=0.25, consumes=False, limit=_TWO_INSERTS, **_ROWS),
    _ours(
        "an insert and publish_on_commit(), 32 threads",
        work="outbox",
        share=0.25,
        consumes=False,
        limit=_TWO_INSERTS,
        **_ROWS,
    ),
    _ours("publish_many()", module="publish_ours", work="many", limit="publish_many()"),
    _ours("the relay", work="relay", limit="publish_many()", **_ROWS),
]
_JSON_LOADS = "json.loads(message.data)"
TYPED = [
    _ours(_JSON_LOADS, limit=_JSON_LOADS),
    _ours("message.json()", work="message json", limit=_JSON_LOADS),
    _ours("a dict, by annotation", work="dict", limit=_JSON_LOADS),
    _ours("a msgspec Struct", work="struct", limit=_JSON_LOADS),
]


def _fleet(name: str, consumers: int, **options: Any) -> Contestant:
    kind = options.pop("kind", "pull")
    return _ours(name, module="fleet_ours", kind=kind, options={"consumers": consumers, **options})


IDLE = [
    _fleet("ours pull, async def", 50),
    _fleet("ours pull, def", 50, **_DEF),
    _fleet("ours push, async def", 50, kind="push"),
    _fleet("ours push, def", 50, kind="push", **_DEF),
]
HUNDRED = "ours pull, 100 consumers"
STARTING = [
    _fleet("ours pull, 1 consumer", 1),
    _fleet("ours pull, 10 consumers", 10),
    _fleet(HUNDRED, 100),
    _fleet("ours push, 100 consumers", 100, kind="push"),
]
GIVING_UP = [_ours("ours pull", work="give up"), _ours("ours push", kind="push", work="give up")]
WAKING = [
    _fleet("ours pull, 5 s", 50, outage=5),
    _fleet("ours pull, 30 s", 50, outage=30),
    _fleet("ours push, 5 s", 50, kind="push", outage=5),
    _fleet("ours push, 30 s", 50, kind="push", outage=30),
]
REPLICATED = [
    _ours("ours pull, one node", options={"replicas": 1}),
    _ours("ours pull, three replicas", options={"replicas": 3}),
    _ours("ours push, one node", kind="push", options={"replicas": 1}),
    _ours("ours push, three replicas", kind="push", options={"replicas": 3}),
]
