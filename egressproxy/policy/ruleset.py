"""``Ruleset``: a compiled policy, which judges flows.

Frozen but for its bounded memos: one engine thread asks it, another ruleset replaces it.
``policy.compile.compile_policy`` makes one from a ``Policy``, ``policy.ship`` carries one to another
process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egressproxy.names import DnsName
    from egressproxy.policy.rules import Destination, Ech, Mode, OnReload, Refusal
    from egressproxy.policy.verdict import Flow, Verdict
    from egressproxy.ports import Protocol


class Ruleset:
    """A compiled policy. Never raises and never awaits in ``decide*``; not thread-safe."""

    digest: str
    policy_mode: Mode
    refusal: Refusal
    on_reload: OnReload
    destination: Destination
    ech: Ech

    def decide(self, flow: Flow, now: float) -> Verdict:
        """Judge a flow in both passes; ``now`` is POSIX seconds."""
        raise NotImplementedError

    def decide_network(self, flow: Flow, now: float) -> Verdict | None:
        """Judge by pass 1 alone (before a byte is read); ``None`` where nothing matched."""
        raise NotImplementedError

    def decide_application(self, flow: Flow, now: float) -> Verdict:
        """Judge by pass 2 alone."""
        raise NotImplementedError

    def next_expiry(self, now: float) -> float | None:
        """The next moment after ``now`` when a date in the policy takes effect, POSIX seconds."""
        raise NotImplementedError

    def note(self, name: DnsName) -> str:
        """The catalog's word on a denied name, or nothing."""
        raise NotImplementedError

    def source_group(self, src: str) -> str | None:
        """The first group of the policy's ``sources`` that an address is in."""
        raise NotImplementedError

    def application_ports(self) -> frozenset[tuple[Protocol, int]]:
        """The tls and http ports that rules use: what the transparent plane must listen for."""
        raise NotImplementedError
