"""``explain``: why a flow is allowed or denied, what nearly decided otherwise, what to write.

The verdict is ``Ruleset.decide``'s own, so an explanation cannot disagree with the decision. For
people and reports: it loops over the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.catalog.symptoms import symptom
from egressproxy.policy.decide import QUIC_PORT
from egressproxy.policy.near_miss import NearMiss, mention, near_misses
from egressproxy.policy.near_name import Kind
from egressproxy.policy.program import end_of_day
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Flow, Reason, Verdict
from egressproxy.ports import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.policy.ruleset import Ruleset

_NEEDED_BY: Final = "needed-by: "
_BY_ADDRESS: Final = (Protocol.TCP, Protocol.UDP)
_WEB_PORTS: Final = frozenset({80, 443})
_SHORT: Final = {(Protocol.TLS, 443): "https", (Protocol.HTTP, 80): "http"}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict and all that helps to understand or change it.

    ``rule`` is the deciding rule whole; ``mentioned_as`` its pattern, list entry or network that
    means the flow. ``note`` is the catalog's word on the name, ``symptom`` what people see in AKS
    while it is denied. ``needed`` are lines of YAML (or of advice, marked ``#``) that would let the
    flow through; empty where it goes through. ``mode_note`` says where ``mode: warn-on-new`` would
    judge otherwise for a while.
    """

    flow: Flow
    verdict: Verdict
    rule: Rule | None
    mentioned_as: str
    source_group: str | None
    near_misses: tuple[NearMiss, ...]
    note: str
    needed: tuple[str, ...]
    symptom: str = ""
    mode_note: str = ""


def explain(policy: Policy, ruleset: Ruleset, flow: Flow, now: float) -> Explanation:
    """Explain the judgement of a flow; ``ruleset`` is compiled from ``policy``."""
    verdict = ruleset.decide(flow, now)
    rule = next((rule for rule in policy.rules if rule.id == verdict.rule_id), None)
    is_denied = not verdict.is_allow or verdict.would_deny
    misses = near_misses(policy, flow, verdict, now) if is_denied else ()
    note = ruleset.note(flow.name) if is_denied and flow.name is not None else ""
    group = ruleset.source_group(flow.src)
    return Explanation(
        flow=flow,
        verdict=verdict,
        rule=rule,
        mentioned_as=mention(rule, flow) if rule is not None else "",
        source_group=group,
        near_misses=misses,
        note=note,
        needed=_needed(flow, verdict, note, group, misses) if is_denied else (),
        mode_note=_mode_note(policy, verdict, now),
        symptom=_symptom(policy, flow, verdict) if is_denied else "",
    )


def _mode_note(policy: Policy, verdict: Verdict, now: float) -> str:
    is_warning = policy.mode is Mode.WARN_ON_NEW and now < end_of_day(policy.warn_until)
    if not is_warning or verdict.reason is not Reason.DEFAULT_DENY or verdict.would_deny:
        return ""
    span = f"for {policy.warn_window} after its first flow"
    return f"warn-on-new lets a name pass {span}, until {policy.warn_until}"


def _symptom(policy: Policy, flow: Flow, verdict: Verdict) -> str:
    if flow.name is None or verdict.reason is Reason.QUIC_REFUSED:
        return ""
    return symptom(flow.name, policy.cloud, port=flow.port)


def why(reason: Reason) -> str:
    """A reason in a few words, for a headline."""
    return _WHY[reason]


def _needed(
    flow: Flow, verdict: Verdict, note: str, group: str | None, misses: tuple[NearMiss, ...]
) -> tuple[str, ...]:
    advice = _ADVICE.get(verdict.reason)
    if advice is not None:
        return (f"# {advice}",)
    best = misses[0] if misses else None
    others = _allowed_as(flow, best)
    if others:
        return (_asked_as(flow, others),)
    if verdict.reason is Reason.QUIC_REFUSED:
        note = ""  # whatever needs the name needs it over TCP
    if note == "harmless":
        return ("# nothing: documented as harmless when blocked",)
    if note.startswith(_NEEDED_BY):
        required = note.removeprefix(_NEEDED_BY).split(", ")
        return ("requirements:", *(f"  - {requirement}" for requirement in required[:1]))
    if best is not None and best.kind is Kind.EXPIRED:
        return (f"# a later until: in {best.rule.id} ({best.rule.origin})",)
    if best is not None and best.kind in (Kind.LOOKALIKE, Kind.SPELLING):
        return ("# first make sure that this is the name you mean",)
    return _rule_to_write(flow, verdict, group)


def _allowed_as(flow: Flow, best: NearMiss | None) -> list[Protocol]:
    """The protocols by which a rule lets the same name and port through, judged by address.

    Not QUIC: a rule for that is no word on the TLS of the same name.
    """
    if best is None or best.kind is not Kind.PROTOCOL or flow.name is None:
        return []
    if not flow.protocol.is_application:
        return []
    spans = {span.protocol for span in best.rule.ports if flow.port in span}
    wanted = (Protocol.TCP, Protocol.UDP) if flow.port != QUIC_PORT else (Protocol.TCP,)
    return [protocol for protocol in wanted if protocol in spans]


def _asked_as(flow: Flow, others: Iterable[Protocol]) -> str:
    return f"# asked as {flow.protocol}; --protocol {' or '.join(others)} asks by address"


def _rule_to_write(flow: Flow, verdict: Verdict, group: str | None) -> tuple[str, ...]:
    target = flow.name or flow.dst
    if target is None:
        return ("# a name or an address to allow",)
    lines = ["rules:", f"  - to: [{_quoted(target)}]", f"    ports: [{_port_item(flow)}]"]
    if flow.src:
        lines.append(f"    from: [{group or _quoted(flow.src)}]")
    if verdict.reason is Reason.RULE and verdict.rule is not None:
        lines.insert(1, f"  # before {verdict.rule_id} ({verdict.rule.origin})")
    if verdict.reason is Reason.QUIC_REFUSED:
        lines = [_FALLS_BACK, *lines]
    if flow.name is not None and flow.protocol.is_application and flow.port not in _WEB_PORTS:
        lines = [_asked_as(flow, _BY_ADDRESS), *lines]
    return tuple(lines)


def _port_item(flow: Flow) -> str:
    protocol = flow.protocol
    if flow.name is None and protocol.is_application:
        protocol = Protocol.TCP
    return _SHORT.get((protocol, flow.port)) or f'"{protocol}:{flow.port}"'


def _quoted(text: str) -> str:
    return f'"{text}"' if ":" in text else text


_FALLS_BACK: Final = (
    "# nothing: clients fall back to TCP, where the name is judged; or, by address and unseen:"
)
_BYTES: Final = "no rule can allow this: the client's bytes are refused, see the reason"
_ADVICE: Final = {
    Reason.MALFORMED_HELLO: _BYTES,
    Reason.HELLO_TOO_LARGE: _BYTES,
    Reason.AMBIGUOUS_REQUEST: _BYTES,
    Reason.HEAD_TOO_LARGE: _BYTES,
    Reason.H2C_REFUSED: _BYTES,
    Reason.HOST_MISMATCH: "sni: any-allowed on the rule of the CONNECT name",
    Reason.ECH_REFUSED: "ech: allow on the rule and in the policy",
}
_WHY: Final = {
    Reason.RULE: "a deny rule matches",
    Reason.DEFAULT_DENY: "no rule matches",
    Reason.NEW_NAME: "no rule matches; the name is new, and mode: warn-on-new lets it pass",
    Reason.EXPIRED_RULE: "its rule has expired",
    Reason.NO_SNI: "no rule matches the address, and the client gives no server name",
    Reason.IP_LITERAL: "no rule matches the address, and the Host is an address",
    Reason.FORBIDDEN_ADDRESS: "the address is private or special, and no rule opens it",
    Reason.QUIC_REFUSED: "QUIC is refused, so that the client falls back to TCP",
    Reason.ECH_REFUSED: "Encrypted ClientHello is refused",
    Reason.MALFORMED_HELLO: "the bytes begin as TLS and are no ClientHello",
    Reason.HELLO_TOO_LARGE: "the ClientHello is larger than max_hello_bytes",
    Reason.HELLO_TIMEOUT: "no whole ClientHello or request head came in time",
    Reason.CLOSED_BEFORE_HELLO: "the client left before it said anything",
    Reason.NOT_TLS_OR_HTTP: "neither TLS nor HTTP on a port that is judged by name",
    Reason.HOST_MISMATCH: "the SNI is not the CONNECT name, or Host not the target",
    Reason.AMBIGUOUS_REQUEST: "two readers could read the request differently",
    Reason.HEAD_TOO_LARGE: "the request head is larger than max_request_head_bytes",
    Reason.H2C_REFUSED: "HTTP/2 in clear text, or CONNECT where no proxy was asked for",
    Reason.DESTINATION_MISMATCH: "the client's address is none of the name's addresses",
    Reason.LIMIT_SOURCE: "one client has max_flows_per_source flows",
    Reason.LIMIT_GLOBAL: "the gateway has max_flows flows",
    Reason.LOOP: "the flow is addressed to the gateway itself",
    Reason.REVOKED: "a reload denied a flow that was open",
    Reason.DNS_REFUSED: "a DNS question that the policy denies",
    Reason.RESOLVE_FAILED: "allowed, but the name has no address",
    Reason.DIAL_FAILED: "allowed, but no address of the name accepts the connection",
    Reason.DIAL_TIMEOUT: "allowed, but no address of the name answers in time",
    Reason.INTERNAL_ERROR: "a defect of this gateway: its journal has the traceback",
}
