"""Rounds: every contestant once a round, so that what disturbs one disturbs its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from workloads import Workload
from workloads.lineup import Contestant

from harness import meter
from harness.endurance import endure
from harness.environments import Environment, NotAvailable, environment
from harness.match import ContestantFailed, Result, Start, play
from harness.operations import OPERATIONS
from harness.server import Server
from harness.services import Services
from harness.streams import Streams
from harness.timed import publish, sleep, take_tasks

# Others on the machine: how many cores they may keep busy, and how often a match is played where
# they keep busy more.
_QUIET_CORES = 0.15
_TRIES = 3
# Handlers that do not count: nothing at all is their point. Nor do threads, which would have to
# take turns for it.
_UNCOUNTED = ("nothing", "through", "slow")


@dataclass
class Standing:
    """Results of a contestant in all rounds, or the reason why there are none."""

    contestant: Contestant
    results: list[Result] = field(default_factory=list)
    failure: str = ""


class Tournament:
    """The contestants of one workload, on one server."""

    def __init__(
        self,
        server: Server,
        services: Services,
        workload: Workload,
        members: Sequence[Contestant],
        *,
        scale: float,
        patience: float,
    ) -> None:
        """`scale` is a factor for the messages; `patience` is how many seconds a match waits for
        the machine to be quiet."""
        self._server = server
        self._services = services
        self._workload = workload
        self._patience = patience
        self.standings = [Standing(contestant) for contestant in members]
        self.environments: dict[str, Environment] = {}
        if not workload.operation:  # else nobody needs the native publishers
            self.environments["native"] = environment("native")
        self._streams = Streams(server, workload, scale)
        self._scale = scale
        self._durables = 0

    def prepare(self) -> None:
        """Make the environments; who lacks something is out."""
        for standing in self.standings:
            contestant = standing.contestant
            if standing.failure:
                continue
            try:
                self.environments[contestant.environment] = environment(contestant.environment)
            except NotAvailable as error:
                self._exclude(contestant.environment, str(error))
            try:
                self._services.start(contestant.needs)
            except FileNotFoundError as error:
                standing.failure = str(error)

    def _exclude(self, environment: str, reason: str) -> None:
        for standing in self.standings:
            if standing.contestant.environment == environment:
                standing.failure = reason

    def play_round(self) -> None:
        """Everybody who is still in plays once."""
        for standing in self.standings:
            if standing.failure:
                continue
            try:
                result = self._play_undisturbed(standing.contestant)
            except ContestantFailed as error:
                standing.failure = str(error)
                print(f"    {standing.contestant.name}: {error}", flush=True)
                continue
            standing.results.append(result)
            print(f"    {standing.contestant.name}: {_shown(result)}", flush=True)

    def _play_undisturbed(self, contestant: Contestant) -> Result:
        """The first match in which nobody else took much of the machine, or the one of several
        with the least."""
        results: list[Result] = []
        while len(results) < _TRIES:
            meter.wait_for_quiet(_QUIET_CORES, self._patience)
            results.append(self._play(contestant))
            if results[-1].foreign < _QUIET_CORES or not self._patience:
                break
        return min(results, key=lambda result: result.foreign)

    def _play(self, contestant: Contestant) -> Result:
        workload, server = self._workload, self._server
        chosen = self.environments[contestant.environment]
        if workload.operation:
            operate = OPERATIONS[workload.operation]
            return operate(server, contestant, chosen, self._scale)
        if contestant.needs == "redis":
            task = self._task(contestant, "")
            return take_tasks(self._services.redis, contestant, chosen, task)
        if not contestant.consumes:
            return sleep(server, contestant, chosen, self._task(contestant, ""))
        task = self._task(contestant, self._streams.stream(contestant))
        if workload.publishes:
            return publish(server, contestant, chosen, task)
        counts = task["work"] not in _UNCOUNTED and not contestant.options.get("def")
        pace = partial(self._streams.pace, contestant, task["stream"]) if workload.rate else None
        start = Start(
            task,
            self._streams.messages(contestant),
            contestant.processes,
            counts,
            pace,
            self._services.pids,
        )
        if workload.backlogs == 1:
            return play(server, contestant, chosen, start)
        refill = partial(self._streams.fill, contestant, task["stream"])
        return endure(server, contestant, chosen, start, workload.backlogs, refill)

    def _task(self, contestant: Contestant, stream: str) -> dict[str, Any]:
        workload = self._workload
        needs_payload = workload.publishes or contestant.needs == "redis"
        self._durables += 1
        return {
            "url": self._server.url,
            "stream": stream,
            "durable": f"d{self._durables}",
            "subject": f"{stream}.>",
            "kind": contestant.kind,
            "work": contestant.work or workload.work,
            "subjects": self._streams.subjects(contestant, stream),
            "loop": contestant.loop,
            "options": contestant.options,
            "payload": workload.payload if needs_payload else "",
            "messages": self._streams.messages(contestant),
            "bytes": workload.bytes,
            "beside": self._streams.beside(contestant),
            "database": self._services.database if contestant.needs == "postgresql" else {},
        }


def _shown(result: Result) -> str:
    disturbed = (
        f" (others took {result.foreign:.2f} cores)" if result.foreign > _QUIET_CORES else ""
    )
    figures = ", ".join(f"{name} {value:,.2f}" for name, value in result.figures.items())
    return f"{figures or f'{result.rate:,.0f}/s'}{disturbed}"
