"""Three nats-servers as one cluster, and streams with a replica on each."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from workloads.lineup import Contestant

from harness import meter
from harness.environments import Environment
from harness.match import ContestantFailed, Result, Start, play
from harness.server import Server
from harness.timed import PUBLISHER, of_figures, publish, task_of
from nats_consumer.exceptions import RequestTimeout

_NODES = 3
_ELECTION_SECONDS = 60.0
_POLL_SECONDS = 0.1
_BACKLOG, _IN_TURN = 100_000, 5_000


def replicate(
    server: Server, contestant: Contestant, environment: Environment, scale: float
) -> Result:
    """Publish and consume with one node, or with three nodes and three replicas. Raises
    ContestantFailed."""
    if contestant.options["replicas"] == 1:
        return _measure([server], contestant, environment, scale)
    with _cluster() as nodes:
        try:
            return _measure(nodes, contestant, environment, scale)
        except RequestTimeout as error:
            raise ContestantFailed(str(error)) from error


def _measure(
    nodes: list[Server], contestant: Contestant, environment: Environment, scale: float
) -> Result:
    noise = meter.Noise(lambda: [node.pid for node in nodes])
    node, replicas = nodes[0], len(nodes)
    backlog = {**_task(node, "Backlog", round(_BACKLOG * scale)), "kind": contestant.kind}
    in_turn = _task(node, "Turn", round(_IN_TURN * scale))
    for task in (backlog, in_turn):
        node.make_stream(task["stream"], replicas)
    try:
        one_by_one = publish(node, PUBLISHER, environment, {**in_turn, "work": "in turn"})
        many = publish(node, PUBLISHER, environment, {**backlog, "work": "many"})
        handled = play(node, contestant, environment, Start(backlog, backlog["messages"]))
    finally:
        for task in (backlog, in_turn):
            node.delete_stream(task["stream"])
    figures = {
        "handled / s": handled.rate,
        "publish() / s": one_by_one.rate,
        "publish_many() / s": many.rate,
    }
    return of_figures(figures, noise)


def _task(node: Server, stream: str, messages: int) -> dict[str, Any]:
    return task_of(node, stream, messages, "parse", durable="bench", payload='{"id": 4711}')


@contextmanager
def _cluster() -> Iterator[list[Server]]:
    ports = _free_ports()
    routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
    with ExitStack() as stack:
        nodes = []
        for port in ports:
            own = ["-n", f"n{port}", "--cluster_name", "bench", "--no_advertise"]
            own += ["--cluster", f"nats://127.0.0.1:{port}", "--routes", routes]
            nodes.append(stack.enter_context(Server(own)))
        _wait_for_leader(nodes[0])
        yield nodes


def _wait_for_leader(node: Server) -> None:
    """Return when three replicas can be had. Raises what the server says at the time limit."""
    deadline = time.monotonic() + _ELECTION_SECONDS
    while True:
        try:
            node.make_stream("First", _NODES)
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            node.delete_stream("First")
            return


def _free_ports() -> list[int]:
    with ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(_NODES)]
        return [each.getsockname()[1] for each in free]
