"""deploy/grafana: a dashboard whose questions are PromQL about metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from tests.deploy.metric_names import OF_PROMETHEUS, families, named, selected_labels
from tests.deploy.test_prometheus import RULES, promtool

if TYPE_CHECKING:
    from collections.abc import Iterator

DASHBOARD: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "deploy" / "grafana" / "egressproxy.json").read_text()
)
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
SHOWN: Final = [panel for panel in PANELS if panel["type"] != "row"]
NOWHERE: Final = {
    "egressproxy_address_book_entries",
    "egressproxy_address_book_names",
    "egressproxy_build_info",
    "egressproxy_client_hello_bytes",
    "egressproxy_kernel_log_overruns_total",
    "egressproxy_kernel_malformed_messages_total",
    "egressproxy_last_reload_duration_seconds",
    "egressproxy_last_reload_timestamp_seconds",
    "egressproxy_log_folded_records_total",
    "egressproxy_review_unreadable_lines_total",
    "egressproxy_service_tags_change_number",
}
"""Metrics that neither a panel nor an alert is about; a new one is put here or there."""


def expressions() -> Iterator[str]:
    for panel in SHOWN:
        for target in panel["targets"]:
            yield target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["expr"]


def test_its_questions_are_promql(tmp_path: Path) -> None:
    written = [
        text.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
        for text in expressions()
    ]
    assert not [text for text in written if "$" in text]
    rules = [{"record": f"panel:{n}:q", "expr": text} for n, text in enumerate(written)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "--lint=none", str(path))


def test_it_is_about_metrics_and_labels_that_there_are() -> None:
    known = families()
    for text in expressions():
        assert named(text) <= known.keys(), text
        for name, label in selected_labels(text):
            assert label in known[name] | OF_PROMETHEUS, (name, label)


def test_legends_have_labels_that_are_left() -> None:
    for panel in SHOWN:
        for target in panel["targets"]:
            kept = re.search(r"\bby \(([^)]*)\)", target["expr"])
            left = set(re.split(r",\s*", kept[1])) if kept else set()
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left, panel["title"]


def test_every_question_is_about_the_chosen_gateways() -> None:
    for text in expressions():
        chosen = text.count('job=~"$job", instance=~"$instance"')
        assert chosen == len(re.findall(r"egressproxy_\w+", text)), text


def test_every_metric_is_on_the_dashboard_or_an_alert_or_left_out_on_purpose() -> None:
    texts = [*expressions(), *(rule["expr"] for rule in RULES)]
    bare = {re.sub(r"_(?:bucket|sum|count)$", "", name) for text in texts for name in named(text)}
    parts = {n for n in families() if re.search(r"_(?:bucket|sum|count)$", n)}
    assert families().keys() - parts - bare == NOWHERE


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_panels_have_numbers_titles_and_the_chosen_source() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in SHOWN:
        assert panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


@pytest.mark.parametrize("key", ["id", "__inputs"])
def test_it_is_of_no_server(key: str) -> None:
    """An exported dashboard has its server's number, or asks for inputs: neither imports well."""
    assert key not in DASHBOARD
