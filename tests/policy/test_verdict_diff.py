"""Differences of policies in words: what is judged otherwise."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from egressproxy.policy import verdict_diff
from egressproxy.policy.verdict_diff import diff_verdicts

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
    "a network rule": (
        "",
        "rules:\n  - {to: [20.9.0.0/16, 20.1.2.3], ports: ['tcp:1433', 'udp:8000-8010']}\n",
        [
            "allowed now: 20.1.2.3/32 on tcp:1433",
            "allowed now: 20.1.2.3/32 on udp:8000-8010",
            "allowed now: 20.9.0.0/16 on tcp:1433",
            "allowed now: 20.9.0.0/16 on udp:8000-8010",
        ],
    ),
    "a network deny on top": (
        "rules:\n  - {to: [20.9.0.0/16], ports: ['tcp:1433']}\n",
        "sources: {build: [10.1.0.0/16]}\nrules:\n"
        "  - {action: deny, to: [20.9.0.0/24], ports: ['tcp:1-2000'], from: [build]}\n"
        "  - {to: [20.9.0.0/16], ports: ['tcp:1433']}\n",
        ["denied now: 20.9.0.0/24 on tcp:1433 from build"],
    ),
    "a name by its addresses": (
        "",
        "rules:\n  - {to: [ntp.example.com], ports: ['udp:123']}\n",
        ["allowed now: ntp.example.com on udp:123"],
    ),
    "any address": (
        "",
        "parameters: {location: japaneast}\nrequirements: [aks/tunnel: {via: any}]\n",
        ["allowed now: any address on tcp:9000", "allowed now: any address on udp:1194"],
    ),
}


def test_tags(load: Loader) -> None:
    tags = '{"cloud": "Public", "values": [{"name": "Sql", "properties": {"addressPrefixes": %s}}]}'
    text = "service_tags: t.json\nrules: [{to: ['tag:Sql'], ports: ['tcp:1433']}]\n"
    old = load("", {"t.json": tags % '["20.1.0.0/16"]'})
    new = load(text)
    assert [str(one) for one in diff_verdicts(old, new, NOON).changes] == [
        "allowed now: tag:Sql on tcp:1433"
    ]
    newer = load(text, {"t.json": tags % '["20.1.0.0/16", "20.2.0.0/16"]'})
    assert [str(one) for one in diff_verdicts(new, newer, NOON).changes] == [
        "allowed now: tag:Sql on tcp:1433"
    ]


@pytest.mark.parametrize(("old", "new", "expected"), CASES.values(), ids=CASES)
def test_changes(load: Loader, old: str, new: str, expected: list[str]) -> None:
    found = diff_verdicts(load(old), load(new), NOON)
    assert [str(change) for change in found.changes] == expected
    assert found.unasked == 0


def test_lists_and_the_bound(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "rules: [{to: ['list:n.txt'], ports: [https]}]\n"
    old = load(text, {"n.txt": "a.example.com\nb.example.com\n"})
    new = load(text, {"n.txt": "b.example.com\nc.example.com\n"})
    assert [str(change) for change in diff_verdicts(old, new, NOON).changes] == [
        "denied now: a.example.com on tls:443",
        "allowed now: c.example.com on tls:443",
    ]
    monkeypatch.setattr(verdict_diff, "MAX_QUESTIONS", 1)
    found = diff_verdicts(old, new, NOON)
    assert (len(found.changes), found.unasked) == (1, 1)


def test_a_wildcard_with_no_room_before_its_suffix(load: Loader) -> None:
    suffix = ".".join(["a" * 60] * 4)
    policy = load(f"rules: [{{to: ['*.{suffix}'], ports: [https]}}]\n")
    assert diff_verdicts(load(""), policy, NOON).changes == ()
