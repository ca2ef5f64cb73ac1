"""The metrics that there are, with their labels, and those that an expression of PromQL names."""

from __future__ import annotations

import re
from typing import Final

from tests import reference

_NAME: Final = re.compile(r"\begressproxy_[a-z0-9_]+")
_SELECTED: Final = re.compile(r"(\begressproxy_[a-z0-9_]+)\{([^}]*)\}")
_LABEL: Final = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")
_OF_HISTOGRAM: Final = ("_bucket", "_sum", "_count")
OF_PROMETHEUS: Final = {"job", "instance", "le", "alertname", "alertstate", "severity"}


def families() -> dict[str, set[str]]:
    """Sample names as Prometheus stores them, with the labels that we give them."""
    known: dict[str, set[str]] = {}
    for metric in reference.metrics():
        name = reference.exposed_name(metric)
        labels = {label for sample in metric.samples for label in sample.labels}
        known[name] = labels
        if metric.type == "histogram":
            known |= {name + part: labels | {"le"} for part in _OF_HISTOGRAM}
    return known


def named(expression: str) -> set[str]:
    """The metrics of ours in an expression."""
    return set(_NAME.findall(expression))


def selected_labels(expression: str) -> set[tuple[str, str]]:
    """Metric and label, for every label that an expression selects by."""
    return {
        (name, label)
        for name, selectors in _SELECTED.findall(expression)
        for label in _LABEL.findall(selectors)
    }
