"""`make bench`: this project, its peers and the limit, on one server, in turn.

`python bench/run.py [WORKLOAD ...] [--quick] [--rounds N] [--only NAME]`. The figures go to
bench/results and into the pages on performance; a quick run only compares with them.
"""

import argparse
import os
import signal
import sys

from harness.server import Server, version
from harness.services import Services
from harness.tournament import Tournament
from report.compare import comparison
from report.results import load, store
from report.summary import summarise
from report.table import table
from report.targets import target_table
from workloads import WORKLOADS, Workload

_PATIENCE_SECONDS = 5.0
_FEWEST_ROUNDS = 3


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    arguments = _arguments()
    quick = arguments.quick
    # Everything that was started ends with the run, also after a SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if arguments.tables:
        for name in WORKLOADS:
            if stored := load(name):
                store(stored)
        return 0
    wanted = arguments.workload or [
        name for name, each in WORKLOADS.items() if each.quick or not quick
    ]
    for name in wanted:
        _run(WORKLOADS[name], arguments)
    return 0


def _run(workload: Workload, arguments: argparse.Namespace) -> None:
    members = [
        each
        for each in (workload.quick if arguments.quick else workload.contestants)
        if arguments.only is None or arguments.only in each.name
    ]
    print(f"{workload.name}: {workload.title}", flush=True)
    rounds = workload.rounds or arguments.rounds
    with Server() as server, Services() as services:
        tournament = Tournament(
            server, services, workload, members, scale=arguments.scale, patience=arguments.patience
        )
        tournament.prepare()
        for number in range(1, rounds + 1):
            print(f"  round {number} of {rounds}", flush=True)
            tournament.play_round()
        servers = {"nats-server": version(), **services.versions()}
    summary = summarise(workload, tournament.standings, tournament.environments, servers)
    print(f"\n{table(summary)}")
    if measured := [each for each in summary["targets"] if each["reached"] is not None]:
        print(target_table(measured))
    stored = load(workload.name)
    if stored is not None:
        print(comparison(summary, stored))
    if arguments.store:
        store(summary)
        print("Stored in bench/results and the pages on performance.")
    else:
        print("Nothing was stored: only complete runs of at least three rounds are.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure against the peers and the limit.")
    parser.add_argument("workload", nargs="*", choices=[[], *WORKLOADS], help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--only", metavar="TEXT", help="contestants whose name contains TEXT")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the messages")
    parser.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="how long to wait before each match until nothing else runs (default: 5; quick: 0)",
    )
    parser.add_argument(
        "--tables", action="store_true", help="only write tables and charts from the stored figures"
    )
    parser.add_argument(
        "--quick", action="store_true", default=os.environ.get("QUICK", "") not in ("", "0")
    )
    arguments = parser.parse_args()
    if arguments.patience is None:
        arguments.patience = 0.0 if arguments.quick else _PATIENCE_SECONDS
    # Only figures of a complete run may replace those of another.
    is_complete = arguments.only is None and arguments.scale == 1.0
    arguments.store = is_complete and not arguments.quick and arguments.rounds >= _FEWEST_ROUNDS
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped: nothing was stored.")
