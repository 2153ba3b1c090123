"""docs/observability.md, the Grafana dashboard and the alerts say what the server really shows and writes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from router import watched_metrics
from router.metrics import Family, Group
from router.process_metrics import PROCESS
from router.server_metrics import BUILD, Metrics, error_codes
from tests.promql import OVER_TIME, names_in

PROJECT = Path(__file__).parents[1]
DOCUMENT = (PROJECT / "docs" / "observability.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((PROJECT / "docs" / "grafana" / "memoryrouter.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((PROJECT / "docs" / "grafana" / "alerts.yml").read_text(encoding="utf-8"))

METRIC_ROW = re.compile(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \| ([a-z_`, ]*) \| (.+) \|$", re.M)
EVENT_ROW = re.compile(r"^\| `([a-z_]+)` \|([^|]+)\|([^|]*)\|([^|]+)\|$", re.M)
LEVELS = frozenset({"debug", "info", "warning", "error", "critical"})
TARGET_LABELS = frozenset({"instance", "job"})
"""What Prometheus adds to every series."""

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
EXPRESSIONS = [
    *((title, target["expr"]) for title, target in TARGETS),
    *((rule["alert"], rule["expr"]) for rule in RULES),
]


def families() -> dict[str, Family]:
    """Every metric that a server has."""
    own = Metrics().page.families()
    groups = [group for group in vars(watched_metrics).values() if isinstance(group, Group)]
    assert PROCESS in groups
    watched = [family for group in groups for family in group.families.values()]
    return {family.name: family for family in (*own, *watched, *BUILD.families.values())}


FAMILIES = families()


# --- metrics ---


def test_the_document_lists_every_metric_as_it_describes_itself_and_no_other() -> None:
    """Name, kind, labels and meaning."""
    listed = {
        name: (kind, tuple(re.findall(r"`([a-z_]+)`", labels)), meaning)
        for name, kind, labels, meaning in METRIC_ROW.findall(DOCUMENT)
    }

    assert listed == {family.name: (family.kind, family.labels, family.description) for family in FAMILIES.values()}


def test_names_follow_prometheus_conventions() -> None:
    """A unit at the end, base units only, and counters that say so."""
    for family in FAMILIES.values():
        assert family.name.startswith(("memoryrouter_", "process_")), family.name
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)(_|$)", family.name), family.name
        assert family.kind != "histogram" or re.search(r"_(seconds|texts)$", family.name), family.name
        assert family.description.endswith("."), family.name
        assert "|" not in family.description, family.name


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_expression_names_only_what_there_is(title: str, expression: str) -> None:
    """Metrics, their labels, counters under a rate, gauges without one, and histograms by their series."""
    named = names_in(expression)
    labels = set(TARGET_LABELS)
    for selector in named.selectors:
        if selector.name == "up":
            continue
        name = re.sub(r"_(bucket|sum|count)$", "", selector.name)
        family = FAMILIES[name]
        assert (name != selector.name) == (family.kind == "histogram"), selector.name
        own = {*family.labels, *TARGET_LABELS, *(["le"] if selector.name.endswith("_bucket") else [])}
        assert selector.labels <= own, f"{selector.labels - own} are no labels of {name}"
        assert (selector.over_time in OVER_TIME) == (family.kind != "gauge"), f"{selector.name} is a {family.kind}"
        labels |= own
    assert named.selectors, title
    assert named.grouped_by <= labels


def test_the_reader_of_expressions_finds_what_is_wrong() -> None:
    """A name that is no function, a range that nothing takes, a sign that PromQL has not."""
    for wrong in ("rate(a[5m]) ~ 1", "rats(a[5m])", "a[5m]", "rate + a", "rate(a[5 minutes])"):
        with pytest.raises(ValueError, match=r"."):
            names_in(wrong)
    (selector,) = names_in('sum by (x, le) (rate(a_bucket{b=~"c",d!="e"}[5m])) > 0.5').selectors
    assert (selector.name, selector.labels, selector.over_time) == ("a_bucket", {"b", "d"}, "rate")


# --- the dashboard ---


def test_the_dashboard_has_its_rows_and_asks_the_chosen_data_source() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}

    assert rows == ["Traffic", "Latency", "Memory and recall", "Providers", "Store and queues", "Cluster", "Process"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    assert DASHBOARD["schemaVersion"] >= 38  # Grafana 10
    for panel in PANELS:
        used = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in used), panel["title"]


def test_panels_have_ids_of_their_own_and_room_of_their_own() -> None:
    """A grid of 24 columns; nothing overlaps."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert len({panel["title"] for panel in PANELS if panel["type"] == "timeseries"}) > 30


@pytest.mark.parametrize(("title", "target"), TARGETS)
def test_every_query_is_of_this_instance_and_its_legend_names_what_it_groups_by(
    title: str, target: dict[str, Any]
) -> None:
    named = names_in(target["expr"])
    in_legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))

    assert all("instance" in selector.labels for selector in named.selectors), title
    assert in_legend <= named.grouped_by, title
    assert in_legend >= named.grouped_by - {"le"}, title


# --- alerts ---


def test_every_alert_is_documented_and_says_what_it_means() -> None:
    documented = {
        name for cell in re.findall(r"^\| (`MemoryRouter[^|]+) \|", DOCUMENT, re.M) for name in re.findall(r"\w+", cell)
    }

    assert {rule["alert"] for rule in RULES} == documented
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        grouped = names_in(rule["expr"]).grouped_by | {"instance"}
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= grouped


def test_alerts_name_codes_and_reasons_that_there_are() -> None:
    (errors,) = [rule["expr"] for rule in RULES if rule["alert"] == "MemoryRouterErrors"]
    (codes,) = re.findall(r'code=~"([a-z_|]+)"', errors)

    assert set(codes.split("|")) <= error_codes()


# --- the log ---


def events() -> Iterator[tuple[str, str, str]]:
    """Every event that the code writes: its name, its level where that stands there, and where."""
    for folder in ("models", "actors", "router"):
        for file in sorted((PROJECT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                    level, name = _level_of(node), node.args[0].value
                    if level is not None and re.fullmatch(r"[a-z]+(_[a-z]+)*", str(name)):
                        yield str(name), level, f"{file.name}:{node.lineno}"


def _level_of(call: ast.Call) -> str | None:
    """The level of a line that is written; "" where it is decided at the time; None where nothing is written."""
    function = call.func
    if isinstance(function, ast.Name) and function.id == "log_event":
        given = [keyword.value for keyword in call.keywords if keyword.arg == "level"]
        if not given:
            return "info"
        return given[0].attr.lower() if isinstance(given[0], ast.Attribute) else ""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        is_logger = function.value.id in ("logger", "_log", "_logger")
        return function.attr if is_logger and function.attr in LEVELS else None
    return None


def test_the_document_lists_every_event_with_its_levels_and_no_other() -> None:
    documented = {name: levels for name, levels, _, _ in EVENT_ROW.findall(DOCUMENT) if _words(levels) & LEVELS}
    written: dict[str, set[str]] = {}
    for name, level, _ in events():
        written.setdefault(name, set()).add(level)

    assert documented.keys() == written.keys()
    for name, levels in written.items():
        assert levels - {""} <= _words(documented[name]), name
        assert "" in levels or _words(documented[name]) & LEVELS == levels, name


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text))
