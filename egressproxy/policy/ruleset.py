"""``Ruleset``: a compiled policy, which judges flows.

Frozen but for its bounded memos: one thread asks it, and another ruleset replaces it.
``policy.compile.compile_policy`` makes one from a ``Policy``; ``policy.ship`` carries one to
another process.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING

from egressproxy.catalog.notes import Notes
from egressproxy.policy.decide import Window
from egressproxy.policy.verdict import Pass

if TYPE_CHECKING:
    from egressproxy.names import DnsName
    from egressproxy.policy.known import Known
    from egressproxy.policy.program import Program
    from egressproxy.policy.rules import Destination, Ech, Mode, OnReload, Refusal
    from egressproxy.policy.verdict import Flow, Verdict
    from egressproxy.ports import Protocol


class Ruleset:
    """Judges flows; ``decide*`` never raise and never wait. Not for several threads at once."""

    __slots__ = ("_address_counts", "_notes", "_window", "digest", "program", "refusal")

    def __init__(self, program: Program) -> None:
        self.program = program
        self.digest: str = program.facts.digest
        """The policy's digest, hexadecimal."""
        self.refusal: Refusal = program.facts.refusal
        """How denied clients are told."""
        self._address_counts = program.facts.tcp_udp_ports
        self._notes = Notes(program.facts.cloud, program.facts.requirements)
        self._window = Window(program, 0.0, 0.0)

    def with_known(self, known: Known | None) -> Ruleset:
        """The same policy with other known names, which only ``mode: warn-on-new`` asks for."""
        return Ruleset(replace(self.program, known=known))

    @property
    def policy_mode(self) -> Mode:
        """The document's mode; all but ``enforce`` end by themselves at their date."""
        return self.program.facts.mode

    @property
    def on_reload(self) -> OnReload:
        """What happens to open flows that a newer policy denies."""
        return self.program.facts.on_reload

    @property
    def destination(self) -> Destination:
        """What a flow without a rule (audit) is dialled by; a rule has its own."""
        return self.program.facts.destination

    @property
    def ech(self) -> Ech:
        """The document's word on Encrypted ClientHello."""
        return self.program.facts.ech

    def decide(self, flow: Flow, now: float) -> Verdict:
        """Judge a flow in both passes; ``now`` is POSIX seconds.

        A flow like one before costs two dictionary lookups.
        """
        window = self._window
        if not window.start <= now < window.end:
            window = self._turn(now)
        protocol, src, port, name, dst, connect, ech, fault = flow
        if connect is not None or fault is not None or ech:
            return window.both(flow)
        source = window.sources.young.get(src) or window.source(src)
        if not self._address_counts[port & 0xFFFF]:
            dst = None
        key = (protocol, port, source.number, name, dst)
        return (
            window.flows.young.get(key)
            or window.flows.get(key)
            or window.flows.put(key, window.both(flow))
        )

    def has_network_rules(self, port: int) -> bool:
        """Whether some rule, in force or not, lets pass 1 decide at a port."""
        return bool(self._address_counts[port & 0xFFFF])

    def decide_network(self, flow: Flow, now: float) -> Verdict | None:
        """Judge by pass 1 alone, before a byte is read; ``None`` where no rule in force matched."""
        return self._at(now).network(flow)

    def decide_application(self, flow: Flow, now: float) -> Verdict:
        """Judge by pass 2 alone."""
        return self._at(now).application(flow)

    def decide_name(self, flow: Flow, now: float) -> Verdict:
        """Judge a flow whose name is dialled, whatever address its client wanted.

        Pass 1 may deny it, but what it allows is that address and no other: pass 2 has the word.
        """
        verdict = self.decide(flow, now)
        if verdict.is_allow and verdict.decided_by is Pass.NETWORK:
            return self.decide_application(flow, now)
        return verdict

    def next_expiry(self, now: float) -> float | None:
        """When after ``now`` a date of the policy next takes effect, POSIX seconds."""
        boundaries = self.program.facts.boundaries
        place = bisect_right(boundaries, now)
        return boundaries[place] if place < len(boundaries) else None

    def note(self, name: DnsName) -> str:
        """The catalog's word on a denied name, or an empty text."""
        return self._notes.of(name)

    def source_group(self, src: str) -> str | None:
        """The first group of the policy's ``sources`` that an address is in."""
        window = self._window
        return (window.sources.young.get(src) or window.source(src)).group

    def application_ports(self) -> frozenset[tuple[Protocol, int]]:
        """The tls and http ports that rules use: what the transparent plane must listen for."""
        return self.program.facts.application_ports

    def _at(self, now: float) -> Window:
        window = self._window
        return window if window.start <= now < window.end else self._turn(now)

    def _turn(self, now: float) -> Window:
        """The window of another moment; judgements of the last one are forgotten."""
        boundaries = self.program.facts.boundaries
        place = bisect_right(boundaries, now)
        start = boundaries[place - 1] if place else float("-inf")
        end = boundaries[place] if place < len(boundaries) else float("inf")
        self._window = Window(self.program, start, end)
        return self._window
