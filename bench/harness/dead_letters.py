"""Dead letters by the hundred thousand: stored by a worker, listed and replayed by the command."""

from typing import Any

from workloads.lineup import Contestant

from harness import meter
from harness.environments import Environment
from harness.match import ContestantFailed, Result, Start, play
from harness.server import Server
from harness.timed import PUBLISHER, of_figures, publish, run, task_of

REPLAY = "replay 1 of 20, s"

_STREAM = "Failing"
_LETTERS = 200_000
# Every twentieth has the reason that is replayed: see `contestants.methods.Give`.
_REPLAYED = 20
_STORE_SECONDS = 300.0
_COMMAND = Contestant(name="nats_dlq", module="dead_letters_ours", environment="project")


def handle_dead_letters(
    server: Server, contestant: Contestant, environment: Environment, scale: float
) -> Result:
    """Store them, list all, and replay one of twenty. Raises ContestantFailed."""
    letters = round(_LETTERS * scale)
    server.make_stream(_STREAM)
    noise = meter.Noise(lambda: [server.pid])
    try:
        publish(server, PUBLISHER, environment, _task(server, letters, "many"))
        task = {**_task(server, letters, contestant.work), "kind": contestant.kind}
        stored = play(server, contestant, environment, Start(task, letters, seconds=_STORE_SECONDS))
        listed, _ = run(server.pid, _COMMAND, environment, _task(server, letters, "list"))
        replayed, _ = run(server.pid, _COMMAND, environment, _task(server, letters, "replay"))
        left = server.messages(f"{_STREAM}-dlq")
    finally:
        server.delete_stream(_STREAM)
        server.delete_stream(f"{_STREAM}-dlq")
    if left != letters - letters // _REPLAYED:
        raise ContestantFailed(f"{left} dead letters were left of {letters}")
    figures = {
        "store, s": stored.seconds,
        "list, s": listed.seconds,
        "peak RSS of the list, MiB": listed.rss_mib,
        REPLAY: replayed.seconds,
    }
    return of_figures(figures, noise)


def _task(server: Server, letters: int, work: str) -> dict[str, Any]:
    return task_of(server, _STREAM, letters, work, durable="giving-up", payload="{}")
