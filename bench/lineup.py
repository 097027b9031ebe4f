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

    @property
    def limit(self) -> str:
        """The name of the contestant it is compared with."""
        return f"async-nats {self.kind} (Rust)"


def _ours(name: str, **rest: Any) -> Contestant:
    return Contestant(name=name, module="ours", **{"environment": "project", **rest})


def _peer(name: str, module: str, **rest: Any) -> Contestant:
    return Contestant(name=name, module=module, **{"environment": "peers", **rest})


def _rust(name: str, module: str, kind: str) -> Contestant:
    return Contestant(name=name, module=module, environment="native", kind=kind)


_SYNC = {"sync": True}
_ALL = [
    _rust("async-nats pull (Rust)", "consume", "pull"),
    _rust("async-nats push (Rust)", "consume", "push"),
    _rust("our engine pull (Rust)", "engine", "pull"),
    _rust("our engine push (Rust)", "engine", "push"),
    _ours("ours pull"),
    _ours("ours push", kind="push"),
    _ours("ours push, concurrency 100", kind="push", options={"concurrency": 100}),
    _ours("ours pull, uvloop", loop="uvloop"),
    _ours("ours pull, newest Python", environment="newest"),
    _ours("ours push, newest Python", environment="newest", kind="push"),
    _ours("ours pull, def", options=_SYNC),
    _ours("ours push, def", kind="push", options=_SYNC),
    _peer("oxnats pull", "oxnats", share=0.5, loop="uvloop"),
    _peer("oxnats push", "oxnats", kind="push", loop="uvloop"),
    _peer("nats-py pull", "nats_py", share=0.5, loop="uvloop"),
    _peer("nats-py push", "nats_py", kind="push", loop="uvloop"),
    _peer("nats-jetstream pull", "nats_jetstream", environment="newest", share=0.5, loop="uvloop"),
    _peer("natsrpy pull", "natsrpy", share=0.25, loop="uvloop"),
    _peer("natsrpy push", "natsrpy", kind="push", share=0.25, loop="uvloop"),
    _peer("FastStream pull", "faststream", share=0.1, loop="uvloop"),
    _peer("FastStream push", "faststream", kind="push", share=0.1, loop="uvloop"),
    _peer("taskiq-nats pull", "taskiq", share=0.1, loop="uvloop", taskiq=True),
    _peer("taskiq-nats push", "taskiq", kind="push", share=0.1, loop="uvloop", taskiq=True),
]
EVERYBODY = {each.name: each for each in _ALL}
