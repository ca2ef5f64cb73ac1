"""Differences of policies in words: names that are judged otherwise."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy import name_diff
from egressproxy.policy.name_diff import diff_names

if TYPE_CHECKING:
    from tests.policy.conftest import Loader

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC).timestamp()
HUB = "rules:\n  - {name: hub, to: [github.com, '*.github.com'], ports: [https]}\n"

CASES = {
    "alike": (HUB, HUB, []),
    "a new rule": (
        "",
        HUB,
        [
            "allowed now: github.com on tls:443",
            "allowed now: *.github.com on tls:443",
        ],
    ),
    "a deny on top shadows a rule that did not change": (
        "rules:\n  - {to: [api.github.com], ports: [https]}\n",
        "rules:\n  - {action: deny, to: ['*.github.com'], ports: [https]}\n"
        "  - {to: [api.github.com], ports: [https]}\n",
        ["denied now: api.github.com on tls:443"],
    ),
    "order": (
        "rules:\n  - {name: a, to: [a.example.com], ports: [https]}\n"
        "  - {name: d, action: deny, to: ['*.example.com'], ports: [https]}\n",
        "rules:\n  - {name: d, action: deny, to: ['*.example.com'], ports: [https]}\n"
        "  - {name: a, to: [a.example.com], ports: [https]}\n",
        ["denied now: a.example.com on tls:443"],
    ),
    "sources": (
        "sources: {build: [10.1.0.0/16]}\n" + HUB,
        "sources: {build: [10.1.0.0/16]}\nrules:\n"
        "  - {name: hub, to: [github.com, '*.github.com'], ports: [https], from: [build]}\n",
        [
            "denied now: github.com on tls:443 from elsewhere",
            "denied now: *.github.com on tls:443 from elsewhere",
        ],
    ),
    "literal sources": (
        "",
        "rules:\n  - {to: [a.example.com], ports: [https, http], from: [10.9.0.0/16]}\n",
        [
            "allowed now: a.example.com on http:80 from 10.9.0.0/16",
            "allowed now: a.example.com on tls:443 from 10.9.0.0/16",
        ],
    ),
    "a rule that has expired allows nothing": (
        "",
        "rules:\n  - {to: [a.example.com], ports: [https], until: 2026-06-14}\n",
        [],
    ),
    "everybody is named": (
        "",
        "rules:\n  - {to: [a.example.com], ports: [https], from: [0.0.0.0/0, '::/0']}\n",
        ["allowed now: a.example.com on tls:443"],
    ),
}


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_changes(load: Loader, old: str, new: str, expected: list[str]) -> None:
    found = diff_names(load(old), load(new), NOON)
    assert [str(change) for change in found.changes] == expected
    assert found.unasked == 0


def test_lists_and_the_bound(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "rules: [{to: ['list:n.txt'], ports: [https]}]\n"
    old = load(text, {"n.txt": "a.example.com\nb.example.com\n"})
    new = load(text, {"n.txt": "b.example.com\nc.example.com\n"})
    assert [str(change) for change in diff_names(old, new, NOON).changes] == [
        "denied now: a.example.com on tls:443",
        "allowed now: c.example.com on tls:443",
    ]
    monkeypatch.setattr(name_diff, "MAX_QUESTIONS", 1)
    found = diff_names(old, new, NOON)
    assert (len(found.changes), found.unasked) == (1, 1)


def test_a_wildcard_with_no_room_before_its_suffix(load: Loader) -> None:
    suffix = ".".join(["a" * 60] * 4)
    policy = load(f"rules: [{{to: ['*.{suffix}'], ports: [https]}}]\n")
    assert diff_names(load(""), policy, NOON).changes == ()
