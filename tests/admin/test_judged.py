"""Each way in which a name was asked for, judged anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.judged import MAX_WAYS, asked, judged_ways, spelling, would_be
from egressproxy.observe.record import NameSource, Plane
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.policy.rules import Policy
from egressproxy.policy.ruleset import Ruleset
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.ports import Protocol
from egressproxy.review.model import Subject, SubjectCount

NOW = 1_790_000_000.0
POLICY = """\
version: 1
cloud: AzureCloud
parameters: {location: japaneast}
sources: {nodes: [10.1.0.0/16]}
requirements: [aks/core]
rules:
  - {name: one, to: [one.test], ports: [https], from: [nodes]}
  - {name: net, to: [20.1.2.0/24], ports: ["tcp:1433"]}
"""


@pytest.fixture
def judge(tmp_path: Path) -> tuple[Policy, Ruleset]:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    policy = load_policy(file)
    return policy, compile_policy(policy)


def subject(**changes: Any) -> Subject:
    fields: dict[str, Any] = {
        "id": 1,
        "gateway": "nva",
        "action": Action.DENY,
        "reason": Reason.DEFAULT_DENY,
        "rule": None,
        "decided_by": Pass.NONE,
        "would_deny": False,
        "plane": Plane.TRANSPARENT,
        "protocol": "tls",
        "src_ip": "10.1.0.4",
        "source_group": "nodes",
        "dst_ip": "20.1.2.3",
        "dst_port": 443,
        "name": "two.test",
        "name_source": NameSource.SNI,
        "note": "",
    }
    return Subject(**(fields | changes))


def count(number: int = 1, **changes: Any) -> SubjectCount:
    return SubjectCount(
        subject=subject(**changes), count=number, first_at=NOW - 60, last_at=NOW - number
    )


def test_clients_that_ask_alike_are_one_way(judge: tuple[Policy, Ruleset]) -> None:
    counts = [count(5), count(3, src_ip="10.1.0.5"), count(2, action=Action.ALLOW)]
    (denied, allowed), more = judged_ways(counts, judge, NOW)
    assert (denied.count, denied.sources, denied.group) == (8, ("10.1.0.4", "10.1.0.5"), "nodes")
    assert not allowed.is_denied
    assert more == 0


ANEW = {
    "still denied": ({"name": "two.test"}, False, "no rule matches"),
    "allowed by now": ({"name": "one.test"}, True, "a rule allows it"),
    "allowed by a requirement by now": ({"name": "mcr.microsoft.com"}, True, "a rule allows it"),
    "not from elsewhere": (
        {"name": "one.test", "src_ip": "10.9.0.4", "source_group": None},
        False,
        "no rule matches",
    ),
    "without a name": (
        {"name": None, "reason": Reason.NO_SNI, "dst_ip": "20.9.9.9"},
        False,
        "no rule matches the address, and the client gives no server name",
    ),
    "an address that is never dialled": (
        {"name": None, "dst_ip": "169.254.169.254", "protocol": "tcp", "dst_port": 80},
        False,
        "the address is private or special, and no rule opens it",
    ),
    "an address that pass 1 allows": (
        {"name": None, "dst_ip": "20.1.2.9", "protocol": "tcp", "dst_port": 1433},
        True,
        "a rule allows it",
    ),
    "bytes that no rule can allow": (
        {"name": None, "reason": Reason.MALFORMED_HELLO},
        False,
        "the bytes begin as TLS and are no ClientHello",
    ),
}


@pytest.mark.parametrize(("changes", "is_changed", "says"), ANEW.values(), ids=ANEW.keys())
def test_each_way_is_judged_anew(
    judge: tuple[Policy, Ruleset], changes: dict[str, Any], is_changed: bool, says: str
) -> None:
    one = count(**changes)
    (way,), _ = judged_ways([one], judge, NOW)
    assert (way.is_changed, way.headline) == (is_changed, says)
    assert way.was == ((str(one.subject.reason), ""),)


def test_the_ways_shown_are_bounded_and_the_commonest(judge: tuple[Policy, Ruleset]) -> None:
    counts = [count(port, dst_port=port) for port in range(1, 20)]
    ways, more = judged_ways(counts, judge, NOW)
    assert [way.port for way in ways] == [19, 18, 17, 16, 15, 14]
    assert more == 19 - MAX_WAYS


def test_before_a_policy_is_loaded_the_records_speak() -> None:
    (way,), _ = judged_ways([count()], None, NOW)
    assert way.explanation is None
    assert way.headline == "no rule matches"
    assert not way.is_changed


WOULD_BE = {
    "a name that a requirement allows": ("mcr.microsoft.com", True),
    "a name that nothing allows": ("two.test", False),
    "an address": ("20.9.9.9", False),
    "an IPv6 address in brackets": ("[2001:db8::1]", False),
    "neither": ("a b<script>", None),
}


@pytest.mark.parametrize(("name", "is_allow"), WOULD_BE.values(), ids=WOULD_BE.keys())
def test_a_name_that_nobody_asked_for_is_judged_as_check_does(
    judge: tuple[Policy, Ruleset], name: str, is_allow: bool | None
) -> None:
    found = would_be(name, judge, NOW)
    assert (found.verdict.is_allow if found else None) is is_allow


def test_a_homoglyph_is_spelled_out() -> None:
    found = spelling("xn--mcr-5cd.test")
    assert found is not None
    assert all("LETTER" in letter for letter in found.letters)
    assert spelling("mcr.microsoft.com") is None


NO_FLOWS: dict[str, dict[str, Any]] = {
    "a name that is none": {"name": "a b<script>"},
    "a protocol that is none": {"protocol": "dns"},
    "neither name nor address": {"name": None, "dst_ip": None},
}


@pytest.mark.parametrize("changes", NO_FLOWS.values(), ids=NO_FLOWS.keys())
def test_what_cannot_be_judged_is_no_flow(changes: dict[str, Any]) -> None:
    assert asked(subject(**changes)) is None


def test_bytes_that_were_refused_are_asked_about_as_they_were() -> None:
    flow = asked(subject(name=None, reason=Reason.AMBIGUOUS_REQUEST, protocol="http"))
    assert flow is not None
    assert (flow.protocol, flow.fault) == (Protocol.HTTP, Reason.AMBIGUOUS_REQUEST)


@given(st.text(max_size=300))
def test_any_name_has_ways_and_a_spelling(name: str) -> None:
    (way,), _ = judged_ways([count(name=name)], None, NOW)
    assert way.count == 1
    spelling(name)
