"""The files for Prometheus and Grafana are valid, name only metrics that exist, and have a runbook for each alert."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from discorder.metrics.catalogue import PER_SHARD, PROCESS
from discorder.metrics.families import MetricKind
from discorder.publishers.delivery.health import PublisherState
from discorder.sessions.store import StoreState
from discorder.statemachine import State
from tests.metrics.alert_rules import ROOT, RULES, rules
from tests.metrics.scrapes import promtool

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "discorder.json").read_text())
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
OF_THE_SYSTEM = {
    "up",  # of Prometheus itself
    *("process_open_fds", "process_max_fds", "process_cpu_seconds_total", "process_resident_memory_bytes"),
}


def series() -> Iterator[str]:
    """Yield the name of each series of the catalogue."""
    for family in (*PROCESS, *PER_SHARD):
        if family.kind is MetricKind.HISTOGRAM:
            yield from (f"{family.name}_{suffix}" for suffix in ("bucket", "count", "sum"))
        else:
            yield family.name


def metrics_in(expression: str) -> set[str]:
    """Return the names of metrics in an expression."""
    return set(re.findall(r"\b(?:up|(?:discorder|process)_\w+)\b(?!\"|=)", expression))


def expressions_of_the_dashboard() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_promtool_accepts_rules_and_configuration() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("check", "config", str(RULES.with_name("prometheus.yaml")))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_names_existing_metrics_and_its_runbook(rule: dict[str, Any]) -> None:
    assert metrics_in(rule["expr"])
    assert metrics_in(rule["expr"]) - {*series(), *OF_THE_SYSTEM} == set()
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"


def test_the_alerts_select_states_that_exist() -> None:
    known: dict[str, type[Enum]] = {
        "discorder_shards": State,
        "discorder_publisher_state": PublisherState,
        "discorder_store_state": StoreState,
    }
    selected = [
        (metric, value)
        for rule in rules()
        for metric, values in re.findall(r'(\w+)\{state(?:=|!=|=~|!~)"([^"]+)"', rule["expr"])
        for value in values.split("|")
    ]
    assert {metric for metric, _ in selected} == set(known)
    assert [
        (metric, value) for metric, value in selected if value not in {state.value for state in known[metric]}
    ] == []


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    alerts = [rule["alert"] for rule in rules()]
    assert sorted(re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE)) == sorted(alerts)


def test_a_runbook_says_where_to_look_and_what_to_do() -> None:
    for section in RUNBOOKS.split("\n## ")[1:]:
        assert section.count("- **Look:** ") == section.count("- **Do:** ") == 1, section.splitlines()[0]


def test_every_alert_is_provoked_by_a_test() -> None:
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*alerts.py"))
    assert [rule["alert"] for rule in rules() if f'"{rule["alert"]}"' not in tests] == []


def test_the_runbooks_name_existing_metrics() -> None:
    assert metrics_in(RUNBOOKS) - {*series(), *OF_THE_SYSTEM} == set()


def test_the_dashboard_names_only_existing_metrics() -> None:
    used = set[str]().union(*map(metrics_in, expressions_of_the_dashboard()))
    assert used - {*series(), *OF_THE_SYSTEM} == set()
    assert len(used) > 20


def test_prometheus_parses_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"checked:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions_of_the_dashboard())
    ]
    file = tmp_path / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert "SUCCESS" in promtool("check", "rules", str(file))


def test_the_panels_of_the_dashboard_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    places = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
