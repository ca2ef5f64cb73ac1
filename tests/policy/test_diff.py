"""Differences of policies in words: rules as written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.diff import diff_rules

if TYPE_CHECKING:
    from tests.policy.conftest import Loader

A = "{name: a, to: [a.example.com], ports: [https]}"
B = "{name: b, to: [b.example.com], ports: [https]}"
C = "{name: c, to: [c.example.com], ports: [https]}"


def rules(*texts: str) -> str:
    return "sources: {x: [10.0.0.0/8], y: [11.0.0.0/8]}\nrules:\n" + "".join(
        f"  - {text}\n" for text in texts
    )


CASES = {
    "nothing": (rules(A, B), "# comment\n" + rules(A, B), []),
    "added": (
        rules(A),
        rules(A, B),
        ["+ rule rules/b: allow b.example.com on tls:443"],
    ),
    "removed": (rules(A, B), rules(B), ["- rule rules/a: allow a.example.com on tls:443"]),
    "unnamed rules do not shift": (
        rules("{to: [a.example.com], ports: [https]}", "{to: [b.example.com], ports: [https]}"),
        rules(
            "{to: [b.example.com], ports: [https], from: [x]}",
            "{to: [b.example.com], ports: [https]}",
        ),
        [
            "- rule rules/#1: allow a.example.com on tls:443",
            "+ rule rules/#1: allow b.example.com on tls:443 from x",
        ],
    ),
    "moved": (
        rules(A, B, C),
        rules(C, A, B),
        ["~ rule rules/c: judged at another place in the order"],
    ),
    "destinations and ports": (
        rules(A),
        rules("{name: a, to: [b.example.com, c.example.com], ports: [https, http]}"),
        ["~ rule rules/a: to + b.example.com, c.example.com; to - a.example.com; ports + http:80"],
    ),
    "clients": (
        rules(A),
        rules(A.replace("}", ", from: [x]}")),
        ["~ rule rules/a: from everyone -> from x"],
    ),
    "everything else": (
        rules(A),
        rules(A.replace("}", ", action: deny, until: 2026-12-31, mode: audit, ech: refuse}")),
        [
            "~ rule rules/a: action allow -> deny; until none -> 2026-12-31;"
            " audit False -> True; ech allow -> refuse"
        ],
    ),
    "settings and groups": (
        rules(A),
        "mode: audit\naudit_until: 2026-12-31\n" + rules(A).replace("11.0.0.0/8", "12.0.0.0/8"),
        [
            "~ mode: enforce -> audit",
            "~ audit_until: none -> 2026-12-31",
            "~ source group y: + 12.0.0.0/8; - 11.0.0.0/8",
        ],
    ),
    "warn-on-new": (
        rules(A),
        "mode: warn-on-new\nwarn_until: 2026-12-31\nwarn_window: 36h\n" + rules(A),
        [
            "~ mode: enforce -> warn-on-new",
            "~ warn_until: none -> 2026-12-31",
            "~ warn_window: 7d -> 36h",
        ],
    ),
    "by address": (
        rules(),
        rules("{name: n, action: deny, to: [10.0.0.0/8], ports: ['tcp:1-9'], from: [12.0.0.0/8]}")
        + "requirements: [aks/tunnel: {via: any}]\n",
        [
            "+ rule rules/n: deny 10.0.0.0/8 on tcp:1-9 from 12.0.0.0/8",
            "+ rule aks/tunnel#udp-1194-any: allow any address on udp:1194",
            "+ rule aks/tunnel#tcp-9000-any: allow any address on tcp:9000",
        ],
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_changes(load: Loader, old: str, new: str, expected: list[str]) -> None:
    assert [str(change) for change in diff_rules(load(old), load(new))] == expected


def test_lists_are_compared_by_entry(load: Loader) -> None:
    text = rules("{name: a, to: ['list:n.txt'], ports: [https]}")
    names = [f"n{i}.example.com" for i in range(30)]
    old = load(text, {"n.txt": "\n".join(names[:15])})
    new = load(text, {"n.txt": "\n".join(names)})
    (change,) = diff_rules(old, new)
    assert str(change).endswith("n24.example.com and 5 more")


def test_tags_whose_ranges_change(load: Loader) -> None:
    def tags(prefix: str) -> str:
        value = {"name": "Sql", "properties": {"addressPrefixes": [prefix]}}
        return json.dumps({"cloud": "Public", "values": [value]})

    text = "service_tags: t.json\nrules: [{name: a, to: ['tag:Sql'], ports: ['tcp:1433']}]\n"
    old = load(text, {"t.json": tags("20.0.0.0/8")})
    new = load(text, {"t.json": tags("21.0.0.0/8")})
    assert [str(change) for change in diff_rules(old, new)] == [
        "~ rule rules/a: the ranges of its service tags changed, 1 added and 1 removed"
    ]
    assert old.digest != new.digest
