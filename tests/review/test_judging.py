"""A recorded flow judged anew, held to what the flow itself would have been told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.names import DnsName
from egressproxy.observe.record import NameSource, Plane
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.rules import Ech, Mode, Policy
from egressproxy.policy.verdict import Action, Flow, Pass, Reason, Verdict
from egressproxy.ports import Protocol
from egressproxy.review.judging import (
    NOT_SERVED,
    Outcome,
    Unjudged,
    judge,
    outcome_of,
    recorded,
)
from egressproxy.service import kernel_denies
from tests.policy.building import NOON, TOMORROW, YESTERDAY, policy, rule
from tests.review.subjects import allowed, subject

OPEN_443 = rule("net", "20.1.2.0/24", ports="tcp:443")
WEB = rule("web", "a.example", "*.b.example")
ALT = rule("alt", "a.example", ports="tls:8443 http:8080")


@dataclass(frozen=True)
class Case:
    id: str
    policy: Policy
    wanted: Outcome | Unjudged
    fields: dict[str, Any] = field(default_factory=dict)
    name: str | None = "a.example"
    reason: Reason | None = None


def case(id: str, policy: Policy, wanted: Outcome | Unjudged, **fields: Any) -> Case:
    name = fields.pop("name", "a.example")
    return Case(id, policy, wanted, fields, name, fields.pop("is_told", None))


NETWORK = {"plane": Plane.NETWORK, "protocol": "tcp", "name_source": NameSource.DNS}
WARNING = policy(WEB, mode=Mode.WARN_ON_NEW, warn_until=TOMORROW)
NEW = {"name": "n.example", "reason": Reason.NEW_NAME, "action": Action.ALLOW, "would_deny": True}
TUNNEL = {"plane": Plane.EXPLICIT, "name_source": NameSource.CONNECT, "dst_ip": None}
CASES = (
    case("a name that a rule has", policy(WEB), Outcome.ALLOW),
    case("a name that no rule has", policy(WEB), Outcome.DENY, name="c.example"),
    case("another port", policy(WEB), Outcome.DENY, dst_port=8443),
    case("http is not tls", policy(WEB), Outcome.DENY, protocol="http"),
    case("audit lets it pass", policy(mode=Mode.AUDIT), Outcome.AUDIT),
    case("a trial", policy(rule("t", "a.example", audit=True)), Outcome.AUDIT),
    case("an expired rule", policy(rule("t", "a.example", until=YESTERDAY)), Outcome.DENY),
    case("from elsewhere", policy(rule("t", "a.example", sources="10.9.0.0/16")), Outcome.DENY),
    case("by address, whatever the name", policy(OPEN_443), Outcome.ALLOW, name="c.example"),
    case("by another address", policy(OPEN_443), Outcome.DENY, dst_ip="20.9.9.9"),
    case(
        "a network deny comes before the name",
        policy(rule("no", "20.1.2.0/24", ports="tcp:443", action=Action.DENY), WEB),
        Outcome.DENY,
    ),
    case("no SNI, by name", policy(WEB), Outcome.DENY, name=None, reason=Reason.NO_SNI),
    case("no SNI, by address", policy(OPEN_443), Outcome.ALLOW, name=None, reason=Reason.NO_SNI),
    case(
        "no SNI to an address that is never dialled, in audit",
        policy(mode=Mode.AUDIT),
        Outcome.DENY,
        name=None,
        dst_ip="169.254.169.254",
        reason=Reason.NO_SNI,
    ),
    case(
        "a tunnel without SNI has the CONNECT name in its record",
        policy(WEB),
        Outcome.DENY,
        reason=Reason.NO_SNI,
        **TUNNEL,
    ),
    case(
        "such a tunnel, its name by address",
        policy(rule("net", "a.example", ports="tcp:443")),
        Outcome.ALLOW,
        reason=Reason.NO_SNI,
        **TUNNEL,
    ),
    case("a malformed hello", policy(WEB), Outcome.DENY, reason=Reason.MALFORMED_HELLO),
    case(
        "a malformed hello that nobody reads",
        policy(OPEN_443),
        Outcome.ALLOW,
        name=None,
        reason=Reason.MALFORMED_HELLO,
    ),
    case("a loop", policy(OPEN_443), Outcome.DENY, name=None, reason=Reason.LOOP),
    case("a client not served", policy(OPEN_443), Outcome.DENY, note=NOT_SERVED, **NETWORK),
    case("ECH refused now", policy(WEB, ech=Ech.REFUSE), Outcome.DENY, ech=True),
    case("ECH allowed now", policy(WEB), Outcome.ALLOW, ech=True, reason=Reason.ECH_REFUSED),
    case("a new name", WARNING, Outcome.AUDIT, **NEW),
    case(
        "a new name, enforced now",
        policy(WEB),
        Outcome.DENY,
        name="n.example",
        reason=Reason.NEW_NAME,
    ),
    case(
        "a new name, its time over",
        policy(mode=Mode.WARN_ON_NEW, warn_until=YESTERDAY),
        Outcome.DENY,
        **NEW,
    ),
    case(
        "a new name to an address whose rule has expired",
        policy(
            WEB,
            rule("net", "20.1.2.0/24", ports="tcp:443", until=YESTERDAY),
            mode=Mode.WARN_ON_NEW,
            warn_until=TOMORROW,
        ),
        Outcome.DENY,
        **NEW,
    ),
    case("a name that was known", WARNING, Outcome.DENY, name="n.example"),
    case("revoked by a reload", policy(WEB), Outcome.ALLOW, reason=Reason.REVOKED),
    case(
        "a tunnel to an http port",
        policy(ALT),
        Outcome.ALLOW,
        dst_port=8080,
        **TUNNEL,
    ),
    case(
        "a tunnel that only a trial for http lets pass, which CONNECT is not asked about",
        policy(rule("t", "a.example", ports="http:8080", action=Action.DENY, audit=True)),
        Outcome.DENY,
        dst_port=8080,
        **TUNNEL,
    ),
    case("the kernel's, by its name", policy(ALT), Outcome.ALLOW, dst_port=8443, **NETWORK),
    case("the kernel's, nothing listens there", policy(WEB), Outcome.DENY, dst_port=22, **NETWORK),
    case(
        "the kernel's, a name's addresses",
        policy(rule("ssh", "a.example", ports="tcp:22")),
        Outcome.ALLOW,
        dst_port=22,
        **NETWORK,
    ),
    case("QUIC in audit", policy(mode=Mode.AUDIT), Outcome.DENY, **{**NETWORK, "protocol": "udp"}),
    case(
        "QUIC by address",
        policy(rule("q", "20.1.2.0/24", ports="udp:443")),
        Outcome.ALLOW,
        **{**NETWORK, "protocol": "udp"},
    ),
    case("ping", policy(OPEN_443), Outcome.DENY, name=None, **{**NETWORK, "protocol": "icmp"}),
    case("an overflow", policy(WEB), Unjudged.OVERFLOW, name=None, is_overflow=True),
    case("a limit", policy(WEB), Unjudged.LIMIT, reason=Reason.LIMIT_SOURCE),
    case(
        "a failed dial",
        policy(WEB),
        Unjudged.FAILED,
        action=Action.ERROR,
        reason=Reason.DIAL_FAILED,
    ),
    case("a DNS question", policy(WEB), Unjudged.DNS, reason=Reason.DNS_REFUSED),
    case("a hostile name", policy(WEB), Unjudged.UNREADABLE, name='"><script>'),
    case("a hostile source", policy(WEB), Unjudged.UNREADABLE, src_ip="=cmd()"),
    case("a hostile destination", policy(WEB), Unjudged.UNREADABLE, dst_ip="a.example"),
    case("a destination with a zone", policy(WEB), Unjudged.UNREADABLE, dst_ip="2001:db8::1%eth0"),
    case("IPv4 as IPv6", policy(WEB), Unjudged.UNREADABLE, src_ip="::ffff:10.240.0.4"),
    case("a port of another world", policy(WEB), Unjudged.UNREADABLE, dst_port=70000),
    case("a guarded address", policy(WEB), Unjudged.TURNS_ON_MORE, reason=Reason.FORBIDDEN_ADDRESS),
    case("a guarded address, denied", policy(), Outcome.DENY, reason=Reason.FORBIDDEN_ADDRESS),
)


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.id)
def test_a_recorded_flow_is_judged_anew(one: Case) -> None:
    found = judge(subject(one.name, **one.fields), compile_policy(one.policy), NOON)
    assert (found if isinstance(found, Unjudged) else outcome_of(found)) is one.wanted


def test_the_answer_is_that_of_the_rule() -> None:
    found = judge(subject("x.b.example"), compile_policy(policy(WEB)), NOON)
    assert found == Verdict(Action.ALLOW, Reason.RULE, "web", Pass.APPLICATION)


def test_the_note_of_a_client_that_is_not_served_is_the_kernels() -> None:
    assert NOT_SERVED == kernel_denies.NO_CLIENT


@pytest.mark.parametrize(
    ("one", "wanted"),
    [
        (subject(), Outcome.DENY),
        (allowed(), Outcome.ALLOW),
        (allowed(would_deny=True), Outcome.AUDIT),
        (subject(action=Action.ERROR), Outcome.ALLOW),
    ],
)
def test_what_became_of_it(one: Any, wanted: Outcome) -> None:
    assert recorded(one) is wanted


def test_more_gets_through() -> None:
    assert Outcome.DENY.rank < Outcome.AUDIT.rank < Outcome.ALLOW.rank


NAMES = st.sampled_from(["a.example", "x.b.example", "b.example", "c.example"])


@given(
    name=NAMES,
    port=st.sampled_from([22, 80, 443, 8080, 8443]),
    protocol=st.sampled_from([Protocol.TLS, Protocol.HTTP]),
    src=st.sampled_from(["10.0.0.1", "10.9.0.1"]),
    dst=st.sampled_from(["20.1.2.3", "20.9.9.9"]),
    mode=st.sampled_from(Mode),
)
def test_a_flow_by_name_is_told_what_the_wire_tells_it(
    name: str, port: int, protocol: Protocol, src: str, dst: str, mode: Mode
) -> None:
    """The law: as long as no rule by address is about a name, record and flow are judged alike."""
    here = policy(WEB, ALT, OPEN_443, rule("s", "c.example", sources="10.9.0.0/16"), mode=mode)
    ruleset = compile_policy(here)
    one = subject(name, dst_port=port, protocol=str(protocol), src_ip=src, dst_ip=dst)
    told = ruleset.decide(Flow(protocol, src, port, DnsName(name), dst), NOON)
    assert judge(one, ruleset, NOON) == told
