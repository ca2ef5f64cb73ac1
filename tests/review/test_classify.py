"""The class of a denied subject and why: each class, what goes before what, and odd records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.record import NameSource, Plane
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Mode, Policy
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review import classify
from egressproxy.review.behaviour import Behaviour, observe_behaviour
from egressproxy.review.bounds import Bounds
from egressproxy.review.classify import Classifier
from egressproxy.review.judging import NOT_SERVED
from egressproxy.review.model import Class, Filter, Finding, Subject
from egressproxy.review.queries import subjects
from egressproxy.review.writer import Writer
from tests.policy.building import DENY, NOON, YESTERDAY, policy, rule
from tests.review.records import traffic
from tests.review.subjects import subject

if TYPE_CHECKING:
    from egressproxy.review.store import Store

SOURCE: Final = "10.240.0.4"
HELD: Final = policy(
    rule("gists", "gist.github.com", action=DENY),
    rule("registry", "mcr.microsoft.com", requirement="aks/core"),
    rule("api", "api.example.com", "*.data.example.com"),
    rule("build", "wheels.example.com", sources="10.241.0.0/24", source_groups=("build",)),
    rule("old", "old.example.com", until=YESTERDAY),
    rule("git", "*.github.com"),
    rule("bad", "bad.example", action=DENY),
    rule("bad-of-build", "*.bad.example", "bad.example", sources="10.241.0.0/24"),
    rule("pages", "github.io"),
    rule("store", "prod*.blob.core.windows.net"),
    rule("database", "20.4.4.4", ports="tcp:5432"),
    rule("ntp", ports="udp:123", any_destination=True),
    requirements=("aks/core",),
)
NOTHING: Final = Behaviour()
DID: Final = Behaviour(
    names={SOURCE: 120},
    addresses={SOURCE: 70},
    tunnels={(SOURCE, "t.evil.example"): 40, (SOURCE, "api.example.com"): 40},
    second_tries={(SOURCE, "20.9.9.9"): "refused.example"},
)
NO_SNI: Final[dict[str, Any]] = {"name": None, "reason": Reason.NO_SNI}
RAW: Final[dict[str, Any]] = {"name": None, "protocol": "tcp", "plane": Plane.NETWORK}


def classifier(held: Policy | None = HELD, did: Behaviour = NOTHING) -> Classifier:
    return Classifier(held, compile_policy(held) if held else None, did, now=NOON)


def find(one: Subject, did: Behaviour = NOTHING, held: Policy | None = HELD) -> Finding:
    return classifier(held, did).finding(one)


EACH: dict[str, tuple[Subject, Class, str]] = {
    "harmless": (
        subject("md-1.blob.storage.azure.net"),
        Class.HARMLESS,
        "documented as harmless",
    ),
    "optional": (subject("umsa1.blob.core.windows.net"), Class.OPTIONAL, "as optional"),
    "missing requirement": (
        subject("x.ods.opinsights.azure.com"),
        Class.MISSING_REQUIREMENT,
        "needed by aks/defender (and by aks/azure-monitor), which the policy does not list",
    ),
    "one label too deep": (
        subject("v1.api.example.com"),
        Class.NEAR_MISS,
        "api.example.com is that name only; names below it are *.api.example.com (rule api)",
    ),
    "the apex": (subject("data.example.com"), Class.NEAR_MISS, "does not cover the apex"),
    "another port": (
        subject("api.example.com", dst_port=8443),
        Class.NEAR_MISS,
        "allows api.example.com on tls:443, not on tls:8443 (rule api)",
    ),
    "another source": (
        subject("wheels.example.com"),
        Class.NEAR_MISS,
        "allows wheels.example.com only from build (rule build)",
    ),
    "expired": (
        subject("old.example.com", reason=Reason.EXPIRED_RULE, rule="old"),
        Class.NEAR_MISS,
        "allowed old.example.com until 2026-06-14 (rule old)",
    ),
    "expired, by a rule that is gone": (
        subject("other.test", reason=Reason.EXPIRED_RULE, rule="rules/trial"),
        Class.NEAR_MISS,
        "its rule rules/trial has expired",
    ),
    "misspelt": (subject("api.exampel.com"), Class.NEAR_MISS, "'example' where this has"),
    "a deny rule before": (
        subject("gist.github.com", reason=Reason.RULE, rule="gists"),
        Class.NEAR_MISS,
        "gists is judged first",
    ),
    "another port of an address": (
        subject(**{**RAW, "dst_ip": "20.4.4.4", "dst_port": 5433}),
        Class.NEAR_MISS,
        "20.4.4.4/32 on tcp:5432, not on tcp:5433",
    ),
    "no SNI to a public address": (
        subject(**NO_SNI),
        Class.SUSPICIOUS,
        "TLS without a server name, to the public address 20.1.2.3",
    ),
    "TLS on an odd port": (subject(dst_port=4444), Class.SUSPICIOUS, "TLS on port 4444"),
    "a split hello": (subject(hello_split=True), Class.SUSPICIOUS, "in pieces"),
    "an overflow": (subject(None, is_overflow=True), Class.SUSPICIOUS, "many different"),
    "letters that imitate": (
        subject("xn--ap-ioc.example.com"),
        Class.SUSPICIOUS,
        "only looks like api.example.com",
    ),
    "unknown": (subject("a.example"), Class.UNKNOWN, "neither the policy nor the catalog knows"),
    "no SNI to a private address": (
        subject(**{**NO_SNI, "dst_ip": "10.9.9.9"}),
        Class.UNKNOWN,
        "the client gives no server name",
    ),
    "by a rule": (
        subject("bad.example", reason=Reason.RULE, rule="rules/bad"),
        Class.UNKNOWN,
        "rule rules/bad denies it, as it is written",
    ),
    "by a rule, and the next has other sources too": (
        subject("bad.example", reason=Reason.RULE, rule="bad"),
        Class.UNKNOWN,
        "rule bad denies it, as it is written",
    ),
    "another customer's, below a name that is allowed": (
        subject("other.github.io"),
        Class.UNKNOWN,
        "neither the policy nor the catalog knows",
    ),
    "a port that a requirement has": (
        subject(**{**RAW, "protocol": "udp", "dst_port": 1194}),
        Class.UNKNOWN,
        "aks/tunnel",
    ),
    "a source that is not served": (
        subject(**RAW, note=NOT_SERVED),
        Class.UNKNOWN,
        "its source is not in clients",
    ),
    "another customer's storage": (
        subject("evil.blob.core.windows.net"),
        Class.UNKNOWN,
        "neither",
    ),
    "a source that is not served, though another would be near": (
        subject(**{**RAW, "dst_ip": "20.4.4.4", "dst_port": 5433}, note=NOT_SERVED),
        Class.UNKNOWN,
        "its source is not in clients",
    ),
    "the gateway itself, by what is no name": (
        subject("no name", reason=Reason.LOOP),
        Class.UNKNOWN,
        "addressed to the gateway itself",
    ),
    "malformed": (
        subject(None, reason=Reason.MALFORMED_HELLO),
        Class.UNKNOWN,
        "begin as TLS and are no ClientHello",
    ),
    "QUIC": (
        subject(None, protocol="udp", reason=Reason.QUIC_REFUSED),
        Class.HARMLESS,
        "falls back to TCP",
    ),
    "a probe": (
        subject(None, reason=Reason.CLOSED_BEFORE_HELLO),
        Class.HARMLESS,
        "left before it said anything",
    ),
    "allowed by now": (
        subject("api.example.com"),
        Class.HARMLESS,
        "the policy allows it by now (api)",
    ),
}


def test_what_may_be_followed_by_more_has_no_full_stop() -> None:
    assert find(subject("md-1.blob.storage.azure.net")).why.endswith("blocking it causes no issue")


@pytest.mark.parametrize(("one", "kind", "words"), EACH.values(), ids=EACH)
def test_each_class(one: Subject, kind: Class, words: str) -> None:
    found = find(one)
    assert found.kind is kind
    assert words in found.why


BEFORE: dict[str, tuple[Subject, Class, str]] = {
    "a split hello before the catalog": (
        subject("md-1.blob.storage.azure.net", hello_split=True),
        Class.SUSPICIOUS,
        "in pieces",
    ),
    "two names before what is allowed by now": (
        subject("api.example.com", reason=Reason.HOST_MISMATCH),
        Class.SUSPICIOUS,
        "fronting",
    ),
    "a second try before a near address": (
        subject(**{**NO_SNI, "dst_ip": "20.9.9.9"}),
        Class.SUSPICIOUS,
        "refused.example",
    ),
    "allowed by now before many names": (subject("api.example.com"), Class.HARMLESS, "by now"),
    "the catalog before many names": (
        subject("x.ods.opinsights.azure.com"),
        Class.MISSING_REQUIREMENT,
        "aks/defender",
    ),
    "a tunnel before a near name": (
        subject("0af3.api.example.com"),
        Class.SUSPICIOUS,
        "40 long names below api.example.com",
    ),
    "a near name before many names": (
        subject("api.exampel.com"),
        Class.NEAR_MISS,
        "rule api",
    ),
    "a near port before an odd one": (
        subject("api.example.com", dst_port=4444),
        Class.NEAR_MISS,
        "tls:4444",
    ),
    "an odd port before many names": (subject(dst_port=4444), Class.SUSPICIOUS, "port 4444"),
    "many names before nothing known": (subject(), Class.SUSPICIOUS, "120 different names"),
    "a scan": (subject(**{**RAW, "dst_port": 25}), Class.SUSPICIOUS, "70 different addresses"),
}


@pytest.mark.parametrize(("one", "kind", "words"), BEFORE.values(), ids=BEFORE)
def test_what_goes_before_what(one: Subject, kind: Class, words: str) -> None:
    found = find(one, DID)
    assert found.kind is kind
    assert words in found.why


def test_the_bytes_lack_no_requirement() -> None:
    found = find(subject("x.ods.opinsights.azure.com", reason=Reason.ECH_REFUSED))
    assert (found.kind, found.requirement) == (Class.UNKNOWN, None)
    assert "Encrypted ClientHello is refused" in found.why


def test_what_a_rule_denies_lacks_no_requirement_but_has_its_symptom() -> None:
    found = find(subject("packages.aks.azure.com", reason=Reason.RULE, rule="mine"), held=policy())
    assert (found.kind, found.requirement) == (Class.UNKNOWN, None)
    assert "rule mine" in found.why
    assert "CSE exit code 31" in found.symptom


def test_symptoms() -> None:
    missing = find(subject("mcr.microsoft.com"), held=policy())
    assert (missing.kind, missing.requirement) == (Class.MISSING_REQUIREMENT, "aks/core")
    assert "CSE exit code 50" in missing.symptom
    held = rule("mcr", "mcr.microsoft.com", requirement="aks/core", sources="10.1.0.0/16")
    near = find(subject("mcr.microsoft.com"), held=policy(held, requirements=("aks/core",)))
    assert near.kind is Class.NEAR_MISS
    assert "CSE exit code 50" in near.symptom
    assert find(subject("md-1.blob.storage.azure.net")).symptom == ""
    assert find(subject("a.example")).symptom == ""


def test_what_audit_lets_pass_is_no_less_denied() -> None:
    held = policy(rule("a", "a.example"), mode=Mode.AUDIT)
    softened = subject("other.test", action=Action.ALLOW, would_deny=True)
    assert find(softened, held=held).kind is Class.UNKNOWN


NEW: Final[dict[str, Any]] = {
    "action": Action.ALLOW,
    "would_deny": True,
    "reason": Reason.NEW_NAME,
}


def test_a_new_name_is_classified_as_if_it_had_been_denied() -> None:
    missing = find(subject("x.ods.opinsights.azure.com", **NEW))
    assert (missing.kind, missing.requirement) == (Class.MISSING_REQUIREMENT, "aks/defender")
    assert find(subject("v1.api.example.com", **NEW)).kind is Class.NEAR_MISS
    unknown = find(subject("other.test", **NEW))
    assert unknown.kind is Class.UNKNOWN
    assert "the name is new" in unknown.why


def test_without_a_policy_the_records_note_counts() -> None:
    assert find(subject("a.example"), held=None).kind is Class.UNKNOWN
    noted = subject("mcr.microsoft.com", note="needed-by: aks/core, mcr")
    found = find(noted, held=None)
    assert (found.kind, found.requirement) == (Class.MISSING_REQUIREMENT, "aks/core")
    assert find(subject("mcr.microsoft.com"), held=None).kind is Class.UNKNOWN
    assert find(subject(**NO_SNI), held=None).kind is Class.SUSPICIOUS


def test_the_deep_search_finds_more_misspellings() -> None:
    one = subject("wheals.exampel.com", dst_port=443, src_ip="10.241.0.9")
    found = classifier()
    assert found.finding(one).kind is Class.UNKNOWN
    assert found.finding(one, deep=True).kind is Class.NEAR_MISS
    assert found.finding(one).kind is Class.UNKNOWN, "whoever asked before"


def test_findings_are_remembered_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify, "MAX_MEMO", 10)
    found = classifier()
    first = found.finding(subject("a.example"))
    assert found.finding(subject("a.example")) is first
    for n in range(25):
        found.finding(subject(f"n{n}.example"))
        assert len(found._memo) <= 10


def test_a_finding_turns_on_all_that_it_is_made_of() -> None:
    """Subjects that differ in one thing only are not taken for one another."""
    found = classifier(did=DID)
    alike = [
        subject(),
        subject(src_ip="10.240.0.5"),
        subject("mcr.microsoft.com", dst_port=80),
        subject(hello_split=True),
        subject(dst_port=4444),
        subject(reason=Reason.HOST_MISMATCH),
        subject(**NO_SNI),
        subject(**{**NO_SNI, "dst_ip": "20.9.9.9"}),
        subject(None, is_overflow=True),
    ]
    together = [found.finding(one) for one in alike]
    assert together == [find(one, DID) for one in alike]


TEXTS: Final = st.text(max_size=40) | st.sampled_from(
    ["api.example.com", "xn--a.example.com", "20.4.4.4", "\x00", "<script>", "a" * 300, "..", "*"]
)
SUBJECTS: Final = st.builds(
    subject,
    st.none() | TEXTS,
    action=st.sampled_from(Action),
    reason=st.sampled_from(Reason),
    rule=st.none() | TEXTS,
    would_deny=st.booleans(),
    plane=st.sampled_from(Plane),
    protocol=st.sampled_from(["tls", "http", "tcp", "udp", "icmp", ""]) | TEXTS,
    src_ip=TEXTS,
    dst_ip=st.none() | TEXTS,
    dst_port=st.integers(-1, 70000),
    name_source=st.sampled_from(NameSource),
    note=TEXTS,
    hello_split=st.booleans(),
    is_overflow=st.booleans(),
)


@given(SUBJECTS, st.booleans(), st.sampled_from([HELD, None]))
def test_any_record_has_a_class_and_a_reason(one: Subject, deep: bool, held: Policy | None) -> None:
    found = classifier(held, DID).finding(one, deep=deep)
    assert found.kind in Class
    assert found.why


_CORE: Final = rule(
    "aks/core#mcr", "mcr.microsoft.com", "*.data.mcr.microsoft.com", requirement="aks/core"
)
EXPECTED: Final = {
    "t.exfil.example": {Class.SUSPICIOUS},
    "203.0.113": {Class.SUSPICIOUS},
    "198.51.100": {Class.UNKNOWN},
    "visualstudio.com": {Class.MISSING_REQUIREMENT},
    "monitoring.azure.com": {Class.MISSING_REQUIREMENT},
    "mircosoft.com": {Class.NEAR_MISS},
    "legacy.partner.example": {Class.NEAR_MISS},
    "vendor.example": {Class.UNKNOWN},
    "pypi.example": {Class.UNKNOWN},
    "npm.example": {Class.UNKNOWN},
    "audited.example": {Class.UNKNOWN},
    "blob.storage.azure.net": {Class.HARMLESS},
}
"""What is asked for on the recorded day, by a part of it."""


def test_a_recorded_day(store: Store) -> None:
    Writer(store, gateway="hub", bounds=Bounds()).add(list(traffic(20_000)))
    held = policy(_CORE, requirements=("aks/core",))
    did = observe_behaviour(store, None, None)
    found = classifier(held, did)
    classes: dict[str, set[Class]] = {part: set() for part in EXPECTED}
    for one in subjects(store, Filter(is_denied=True)):
        part = next(part for part in EXPECTED if part in one.subject.target)
        classes[part].add(found.finding(one.subject).kind)
    assert classes == EXPECTED
