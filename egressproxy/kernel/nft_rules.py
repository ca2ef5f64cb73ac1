"""Pass 1 as rules of a chain: the first that matches ends it.

A policy's rule becomes a line for each family, protocol and kind of destination that it has, and
all of them count on its one counter. A rule for every client and any destination is one line for
both families.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.kernel.kernel_policy import TCP_AND_UDP
from egressproxy.kernel.nft_names import comment_of, rule_counter
from egressproxy.kernel.nft_sets import FAMILIES, ranges_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from egressproxy.kernel.kernel_policy import KernelRule
    from egressproxy.kernel.nft_sets import Sets
    from egressproxy.ports import PortSpan, Protocol


def rule_lines(
    rules: Iterable[KernelRule], sets: Sets, outcome: Callable[[KernelRule], str]
) -> Iterator[str]:
    """The lines of rules in order; ``outcome`` is what a match leads to, as text."""
    for rule in rules:
        end = f"{outcome(rule)} comment {comment_of(rule.id)}"
        for addresses in _address_matches(rule, sets):
            for protocol in TCP_AND_UDP:
                if ports := _ports(rule.spans, protocol):
                    yield " ".join(filter(None, (addresses, f"{protocol} dport {ports}", end)))


def counted(rule: KernelRule, target: str) -> str:
    """Count a match and go on in another chain."""
    return f'counter name "{rule_counter(rule.id)}" goto {target}'


def port_set(texts: Iterable[str]) -> str:
    """``443`` or ``{ 80, 443 }``."""
    listed = tuple(texts)
    return listed[0] if len(listed) == 1 else f"{{ {', '.join(listed)} }}"


def _address_matches(rule: KernelRule, sets: Sets) -> Iterator[str]:
    if rule.any_destination and rule.sources is None:
        yield ""
        return
    for version in FAMILIES:
        source = ""
        if rule.sources is not None:
            if not ranges_of(rule.sources, version):
                continue
            source = sets.match("saddr", version, rule.sources)
        for destination in _destinations(rule, version, sets):
            yield " ".join(filter(None, (source, destination)))


def _destinations(rule: KernelRule, version: int, sets: Sets) -> Iterator[str]:
    if rule.any_destination:
        yield ""
        return
    if ranges_of(rule.destinations, version):
        yield sets.match("daddr", version, rule.destinations)
    for name in rule.names:
        yield sets.match_name(version, name)


def _ports(spans: Iterable[PortSpan], protocol: Protocol) -> str:
    texts = [
        str(span.first) if span.first == span.last else f"{span.first}-{span.last}"
        for span in spans
        if span.protocol is protocol
    ]
    return port_set(texts) if texts else ""
