"""The operations that are measured instead of consuming and publishing, by name."""

from collections.abc import Callable

from workloads.lineup import Contestant

from harness.cluster import replicate
from harness.dead_letters import handle_dead_letters
from harness.environments import Environment
from harness.fleets import rest, start, wake
from harness.match import Result
from harness.server import Server

OPERATIONS: dict[str, Callable[[Server, Contestant, Environment, float], Result]] = {
    "rest": rest,
    "start": start,
    "wake": wake,
    "dead letters": handle_dead_letters,
    "replicate": replicate,
}
