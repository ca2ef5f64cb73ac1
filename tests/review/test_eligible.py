"""Which denied flows a suggestion may be made of, and what is said of the others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from egressproxy.names import DnsName
from egressproxy.observe.record import NameSource, Plane
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Ech, Mode
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.eligible import Because, Eligible, Limits, sort_denied
from egressproxy.review.judging import NOT_SERVED
from tests.policy.building import NOON, TODAY, YESTERDAY, policy, rule
from tests.review.subjects import Told, allowed, counted, subject

NETWORK = {"plane": Plane.NETWORK, "protocol": "tcp", "name_source": NameSource.DNS}
POLICY = policy(
    rule("rules/no", "gist.github.com", action=Action.DENY),
    rule("rules/hub", "github.com"),
    rule("rules/old", "old.example", until=YESTERDAY),
    rule("rules/trial", "trial.example", audit=True, audit_until=TODAY),
    rule("rules/team", "team.example", sources="10.9.0.0/16"),
)
TOLD = Told(
    suspicious=("bad.example", "20.9.9.9"), harmless=("md-1.example",), optional=("maybe.example",)
)


def sort(*subjects: Any, limits: Limits | None = None, mode: Mode = Mode.ENFORCE) -> Eligible:
    mine = replace(POLICY, mode=mode)
    counts = [one if hasattr(one, "count") else counted(one) for one in subjects]
    return sort_denied(counts, mine, compile_policy(mine), TOLD, limits or Limits(), NOON)


@dataclass(frozen=True)
class Case:
    name: str | None
    says: str
    fields: dict[str, Any] = field(default_factory=dict)
    is_barred: bool = True
    is_shared: bool = False


WITHHELD = {
    "suspicious": Case("bad.example", "suspicious: told so of bad.example"),
    "suspicious by address": Case(
        None, "suspicious", {"dst_ip": "20.9.9.9", "reason": Reason.NO_SNI}
    ),
    "harmless": Case("md-1.example", "documented as harmless", is_barred=False),
    "optional": Case("maybe.example", "optional: told so", is_barred=False),
    "denied on purpose": Case("gist.github.com", "rules/no denies it (policy.yaml:7)"),
    "expired": Case("old.example", "a later until: there"),
    "on trial": Case("trial.example", "rules/trial allows it on trial"),
    "a typing error": Case("gihtub.com", "github.com is spelt almost like this"),
    "a lookalike": Case(
        DnsName("g\N{CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I}thub.com"), "only looks like"
    ),
    "an imitation of what the policy has not": Case(
        "mcr.rnicrosoft.com", "passes itself off as microsoft.com"
    ),
    "a stranger's": Case("x.blob.core.windows.net", "make sure that it is yours", is_shared=True),
    "bytes": Case("a.example", "bytes are refused", {"reason": Reason.MALFORMED_HELLO}),
    "QUIC": Case(
        "a.example", "QUIC", {**NETWORK, "protocol": "udp", "reason": Reason.QUIC_REFUSED}
    ),
    "never dialled": Case(
        None, "no policy opens", {"dst_ip": "169.254.169.254", "reason": Reason.NO_SNI}
    ),
    "a loop": Case(None, "the gateway itself", {"reason": Reason.LOOP}),
    "not served": Case(
        "a.example", "none that this gateway serves", {**NETWORK, "note": NOT_SERVED}
    ),
    "ping": Case(None, "no policy forwards icmp", {**NETWORK, "protocol": "icmp"}),
    "an overflow": Case(None, "many names of a busy source", {"is_overflow": True}),
    "a limit": Case("a.example", "a limit", {"reason": Reason.LIMIT_GLOBAL}),
    "unreadable": Case("<b>", "is no name", {}),
    "nothing said": Case(
        None, "neither a name nor an address", {"dst_ip": None, "plane": Plane.EXPLICIT}
    ),
}


@pytest.mark.parametrize("case", WITHHELD)
def test_withheld(case: str) -> None:
    told = WITHHELD[case]
    found = sort(subject(told.name, **told.fields))
    assert not found.wanted
    ((_, because),) = found.withheld
    assert told.says in because.text
    assert (because.is_barred, because.is_shared) == (told.is_barred, told.is_shared)


WANTED = {
    "a name": (subject("a.example"), ""),
    "one label too deep": (subject("api.github.com"), "rules/hub github.com is that name only"),
    "another port": (subject("github.com", dst_port=8443), "rules/hub allows github.com on"),
    "from elsewhere": (subject("team.example"), "rules/team allows team.example only from"),
    "the kernel's": (subject("db.example", dst_port=5432, **NETWORK), ""),
    "by address": (subject(None, dst_port=1433, **NETWORK), ""),
    "let pass by audit": (
        allowed("a.example", reason=Reason.DEFAULT_DENY, rule=None, would_deny=True),
        "",
    ),
    "a new name": (allowed("a.example", reason=Reason.NEW_NAME, rule=None, would_deny=True), ""),
    "revoked": (subject("a.example", reason=Reason.REVOKED), ""),
}


@pytest.mark.parametrize("case", WANTED)
def test_wanted(case: str) -> None:
    one, hint = WANTED[case]
    found = sort(one)
    assert not found.withheld
    assert [each.count.subject for each in found.wanted] == [one]
    assert found.wanted[0].hint.startswith(hint)
    assert bool(found.wanted[0].hint) is bool(hint)


def test_what_is_allowed_by_now_or_always_was_is_left_out() -> None:
    assert sort(subject("github.com"), allowed("x.example")) == Eligible()


def test_the_word_for_a_name() -> None:
    found = sort(
        subject("x.blob.core.windows.net"), limits=Limits(mine=("x.blob.core.windows.net",))
    )
    assert len(found.wanted) == 1


@pytest.mark.parametrize(
    ("mine", "name", "wanted"),
    [
        (("a.example",), "a.example", True),
        (("a.example",), "b.a.example", False),
        (("*.a.example",), "b.a.example", True),
        (("*.a.example",), "a.example", False),
        (("*.a.example",), "ba.example", False),
        ((), "a.example", False),
    ],
)
def test_whose_name_it_is(mine: tuple[str, ...], name: str, wanted: bool) -> None:
    assert Limits(mine=mine).is_mine(name) is wanted


def test_few_flows_are_not_enough() -> None:
    limits = Limits(at_least=3)
    found = sort(counted(subject("a.example"), 2), counted(subject("b.example"), 3), limits=limits)
    assert [each.count.subject.name for each in found.wanted] == ["b.example"]
    assert found.withheld[0][1] == Because("fewer than 3 flows", is_barred=False)


def test_flows_of_a_target_add_up() -> None:
    both = (counted(subject("a.example", src_ip=f"10.0.0.{i}"), 2) for i in (1, 2))
    assert len(sort(*both, limits=Limits(at_least=3)).wanted) == 2


def test_only_the_commonest_are_looked_at_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egressproxy.review.eligible.MAX_TARGETS", 1)
    bad = counted(subject("bad.example"), 1)
    found = sort(counted(subject("a.example"), 2), counted(subject("b.example"), 3), bad)
    assert [each.count.subject.name for each in found.wanted] == ["b.example"]
    assert {each.subject.name: because.is_barred for each, because in found.withheld} == {
        "bad.example": True,
        "a.example": False,
    }


def test_the_optional_where_it_is_asked_for() -> None:
    assert sort(subject("maybe.example"), limits=Limits(with_optional=True)).wanted


def test_in_audit_everything_is_still_sorted() -> None:
    found = sort(subject("a.example"), subject("gist.github.com"), mode=Mode.AUDIT)
    assert [each.count.subject.name for each in found.wanted] == ["a.example"]
    assert len(found.withheld) == 1


def test_a_new_name_is_wanted_where_new_names_are_warned_of() -> None:
    here = replace(POLICY, mode=Mode.WARN_ON_NEW, warn_until=TODAY)
    one = counted(allowed("a.example", reason=Reason.NEW_NAME, rule=None, would_deny=True))
    found = sort_denied([one], here, compile_policy(here), TOLD, Limits(), NOON)
    assert [each.count for each in found.wanted] == [one]


def test_encrypted_client_hello() -> None:
    mine = policy(rule("rules/a", "a.example", ech=Ech.REFUSE))
    one = counted(subject("a.example", ech=True))
    found = sort_denied([one], mine, compile_policy(mine), TOLD, Limits(), NOON)
    assert "ech: allow" in found.withheld[0][1].text


def test_what_is_withheld_anyway_pushes_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is suspicious may ask for more names, and more often, than all others."""
    monkeypatch.setattr("egressproxy.review.eligible.MAX_TARGETS", 1)
    bad = [counted(subject(name), 1000) for name in ("bad.example", "gist.github.com")]
    found = sort(*bad, subject("a.example"))
    assert [each.count.subject.name for each in found.wanted] == ["a.example"]


def test_documented_names_come_before_the_commonest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egressproxy.review.eligible.MAX_TARGETS", 1)
    found = sort(counted(subject("a.example"), 1000), subject("mcr.microsoft.com"))
    assert [each.count.subject.name for each in found.wanted] == ["mcr.microsoft.com"]
