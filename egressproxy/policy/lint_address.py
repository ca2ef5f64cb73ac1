"""What opens by address: whoever has one of these addresses is reached, whatever name is spoken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.catalog.loader import load_catalog
from egressproxy.policy.lint_everywhere import is_everywhere
from egressproxy.policy.lint_finding import Code, Finding, named
from egressproxy.policy.verdict import Action
from egressproxy.ports import PortSpan, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.policy.lint_survey import Survey
    from egressproxy.policy.networks import Network
    from egressproxy.policy.rules import Rule

_TUNNEL: Final = "aks/tunnel"
"""What is open to it is told however narrow: it carries commands into the cluster."""
_API_SERVER: Final = "aks/api-server"
_WIDE: Final = {4: 24, 6: 56}
_CLOUD: Final = "AzureCloud"
_TUNNEL_PORTS: Final = frozenset(
    {PortSpan(Protocol.UDP, 1194, 1194), PortSpan(Protocol.TCP, 9000, 9000)}
)
_BY_NAME: Final = {
    PortSpan(Protocol.TCP, 443, 443): "write https: it is judged by name",
    PortSpan(Protocol.TCP, 80, 80): "write http: it is judged by name",
    PortSpan(Protocol.UDP, 443, 443): "leave QUIC refused: over TCP https judges the name",
}
_ANY: Final = "any address"
_HINT: Final = "allow names with https where there are any"
_HINTS: Final = {
    53: "name your DNS servers: aks/custom-dns, or their addresses",
    123: "name your time servers, such as ntp.ubuntu.com",
}


def address_findings(survey: Survey) -> Iterator[Finding]:
    """Of each allow rule in force."""
    told: set[tuple[str, int, int]] = set()
    for _, rule in survey.in_force():
        if rule.action is not Action.ALLOW:
            continue
        yield from _by_address(rule)
        place = (rule.origin.file, rule.origin.line, rule.origin.column)
        if rule.requirement in (None, _TUNNEL, _API_SERVER) and place not in told:
            for finding in _of_the_cluster(rule, survey.policy.cloud):
                told.add(place)  # the rows of a requirement are one to a person
                yield finding


def _by_address(rule: Rule) -> Iterator[Finding]:
    spans = [span for span in rule.ports if not span.protocol.is_application]
    if what := _wide(rule):
        text = f"{what} on {named(spans)} is allowed by address:"
        hint = _of_the_catalog(rule) or _HINTS.get(spans[0].first, _HINT)
        yield Finding.of(rule, Code.BY_ADDRESS, f"{text} the name is not checked", hint)
    if rule.patterns or rule.lists:
        for span in spans:
            if span in _BY_NAME:
                text = f"{span} opens what its names resolve to: the name inside is not checked"
                yield Finding.of(rule, Code.BY_ADDRESS, text, _BY_NAME[span])


def _of_the_catalog(rule: Rule) -> str:
    """The narrower way in which a requirement can be had."""
    vias = load_catalog().requirement(rule.requirement).vias if rule.requirement else {}
    if "fqdn" in vias:
        return "with via: fqdn its names alone are open"
    if "api-server" in vias and (rule.tags or _wide(rule) == _ANY):
        return "with via: api-server its own addresses alone are open"
    return "accept it here where the cluster needs it" if vias else ""


def _wide(rule: Rule) -> str:
    if rule.any_destination or is_everywhere(rule.networks):
        return _ANY
    if rule.tags:
        return f"service tag {named(rule.tags)}"
    wide = [net for net in rule.networks if _is_wide(net) or rule.requirement == _TUNNEL]
    return named(wide)


def _is_wide(network: Network) -> bool:
    return not network.is_private and network.prefixlen < _WIDE[network.version]


def _of_the_cluster(rule: Rule, cloud: str) -> Iterator[Finding]:
    """What AKS once needed, or needs only of pods that do not know better."""
    if cloud == _CLOUD and (spans := [span for span in rule.ports if _is_tunnel(rule, span)]):
        what = rule.requirement or named(spans)
        text = f"{what} is for an older tunnel: clusters with konnectivity-agent do not use it"
        hint = "remove it where kubectl -n kube-system get deployment konnectivity-agent finds one"
        yield Finding.of(rule, Code.OLD_TUNNEL, text, hint)
    if rule.requirement == _API_SERVER:
        text = "pods reach the API server by address here: the name is not checked"
        hint = (
            'annotate them with kubernetes.azure.com/set-kube-service-host-fqdn: "true", which'
            " gives them its name, and remove this"
        )
        yield Finding.of(rule, Code.API_SERVER_BY_ADDRESS, text, hint)


def _is_tunnel(rule: Rule, span: PortSpan) -> bool:
    """Of rules that people write, those that no other service at these ports explains."""
    if rule.requirement is not None:
        return rule.requirement == _TUNNEL
    to_the_region = any(tag.partition(".")[0].lower() == _CLOUD.lower() for tag in rule.tags)
    if span == PortSpan(Protocol.TCP, 22, 22):  # the tunnel before that one
        return to_the_region
    return span in _TUNNEL_PORTS and (to_the_region or is_everywhere(rule.networks))
