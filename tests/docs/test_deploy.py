"""The files in deploy/ can be read, and name what exists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import load_command_class

from nats_consumer import _native
from nats_consumer import settings as ours
from nats_consumer.run.workers.limits import Reason
from tests.docs.support.blocks import ROOT

DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
YAML = [path for path in FILES if path.suffix == ".yaml"]
ALERTS = DEPLOY / "prometheus/alerts.yaml"
DASHBOARD = DEPLOY / "grafana/dashboard.json"
_METRIC = re.compile(r"\b(?:nats_consumer|process)_\w+")
_SELECTOR = re.compile(r"\b((?:nats_consumer|process)_\w+)(\{[^}]*\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!=|!~|=)")
# What Prometheus adds to each series.
_TARGET = {"job", "instance", "le"}
_NO_METRIC = {"nats_consumer"}  # the name of the command


def families() -> dict[str, set[str]]:
    """Each name that a query may have, with its labels."""
    found = {name: set(labels) for name, _, labels, _ in _native.metric_families()}
    of_histograms = {
        f"{name}{suffix}": labels
        for name, labels in found.items()
        for suffix in ("_bucket", "_sum", "_count")
    }
    return found | of_histograms


def queries() -> Iterator[str]:
    """Each PromQL expression in the files."""
    for group in yaml.safe_load(ALERTS.read_text())["spec"]["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))


def dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return board


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_metric_that_a_file_names_exists(path: Path) -> None:
    named = set(_METRIC.findall(path.read_text())) - _NO_METRIC
    assert named <= set(families())


def test_each_label_that_a_query_names_is_one_of_its_metric() -> None:
    for query in queries():
        known = families()
        selectors = _SELECTOR.findall(query)
        assert selectors, query
        for name, labels in selectors:
            assert set(_LABEL.findall(labels)) <= known[name] | _TARGET, query
        all_labels = set().union(*(known[name] for name, _ in selectors)) | _TARGET
        for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
            assert {each.strip() for each in grouped.split(",")} <= all_labels, query


def test_each_query_has_its_brackets_in_pairs() -> None:
    for query in queries():
        for opening, closing in ("()", "[]", "{}"):
            assert query.count(opening) == query.count(closing), query


def test_the_lag_is_never_summed() -> None:
    """Each process reports the same numbers."""
    of_the_server = {name for name, labels in families().items() if labels >= {"stream"}}
    for query in queries():
        summed = re.findall(r"sum by \([^)]*\) \((?:rate|increase)?\(?(\w+)", query)
        assert not of_the_server.intersection(summed), query


def test_alerts_have_names_of_their_own_and_say_what_is_wrong() -> None:
    [group] = yaml.safe_load(ALERTS.read_text())["spec"]["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names) > 10
    assert all(rule["annotations"]["summary"].endswith(".") for rule in group["rules"])
    assert all(rule["labels"]["severity"] in ("critical", "warning") for rule in group["rules"])


def test_the_reasons_that_an_alert_names_exist() -> None:
    [reasons] = re.findall(r'reason=~"([^"]*)"', ALERTS.read_text())
    assert set(reasons.split("|")) <= set(Reason)


def test_panels_of_the_dashboard_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_each_yaml_file_is_one_object(path: Path) -> None:
    found = yaml.safe_load(path.read_text())
    assert "kind" in found or "services" in found


def commands() -> Iterator[list[str]]:
    """The arguments of the command in each file that starts it."""
    unit = (DEPLOY / "systemd/nats-consumer.service").read_text()
    [line] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    yield line.split()
    yield yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["consumers"]["command"]
    deployment = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())
    yield deployment["spec"]["template"]["spec"]["containers"][0]["command"]


def test_the_command_takes_the_arguments_that_each_file_gives() -> None:
    parser = load_command_class("nats_consumer", "nats_consumer").create_parser("", "")
    for command in commands():
        arguments = command[command.index("nats_consumer") + 1 :]
        assert parser.parse_args(arguments).setup


def test_nats_apply_takes_the_arguments_that_its_job_gives_and_asks_nobody() -> None:
    job = yaml.safe_load((DEPLOY / "kubernetes/apply.yaml").read_text())
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    parser = load_command_class("nats_consumer", "nats_apply").create_parser("", "")
    assert parser.parse_args(command[command.index("nats_apply") + 1 :]).yes


def test_process_managers_wait_for_longer_than_a_shutdown_takes() -> None:
    least = ours._DEFAULT_SHUTDOWN_TIMEOUT + 5
    unit = (DEPLOY / "systemd/nats-consumer.service").read_text()
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["consumers"]
    deployment = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())
    patience = [
        re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0],
        compose["stop_grace_period"].removesuffix("s"),
        deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
    ]
    assert all(int(seconds) > least for seconds in patience)
