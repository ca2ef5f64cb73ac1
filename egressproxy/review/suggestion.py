"""What a suggestion is: one addition to a policy, why, on what evidence, and at what risk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from egressproxy.policy.rules import Rule
    from egressproxy.review.model import SubjectCount

MAX_SAMPLE: Final = 8
"""Targets and client addresses that the evidence names."""


class Kind(StrEnum):
    """What is suggested; in order of preference."""

    REQUIREMENT = "requirement"
    NAME = "name"
    WILDCARD = "wildcard"
    ADDRESS = "address"
    WITHHELD = "withheld"
    """Nothing: ``why`` says why not. What a person may still copy is in ``yaml``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The recorded flows that a suggestion would let through; samples have the commonest first."""

    flows: int
    targets: tuple[str, ...]
    target_count: int
    sources: tuple[str, ...]
    source_count: int
    first_at: float
    last_at: float

    @classmethod
    def of(cls, counts: Sequence[SubjectCount]) -> Evidence:
        """What at least one count adds up to."""
        targets: Counter[str] = Counter()
        sources: Counter[str] = Counter()
        for each in counts:
            targets[each.subject.target] += each.count
            sources[each.subject.src_ip] += each.count
        return cls(
            flows=targets.total(),
            targets=tuple(target for target, _ in targets.most_common(MAX_SAMPLE)),
            target_count=len(targets),
            sources=tuple(source for source, _ in sources.most_common(MAX_SAMPLE)),
            source_count=len(sources),
            first_at=min(each.first_at for each in counts),
            last_at=max(each.last_at for each in counts),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One addition, or what is not suggested.

    ``title`` is what would be allowed: a requirement, a name, a pattern, an address. ``entry`` are
    the lines of one item of ``section`` (``requirements`` or ``rules``), not indented. ``rules`` is
    what the item means; their ids begin with ``suggested/``. ``subjects`` are the recorded flows
    that it lets through, or that stay denied where it is withheld.
    """

    kind: Kind
    title: str
    why: str
    evidence: Evidence
    risk: str = ""
    section: str = ""
    entry: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = field(default=(), repr=False)
    subjects: tuple[SubjectCount, ...] = field(default=(), repr=False)

    @property
    def is_offered(self) -> bool:
        """Whether it is suggested at all."""
        return self.kind is not Kind.WITHHELD

    @property
    def yaml(self) -> str:
        """The item with its section, to be copied into a policy; may be empty."""
        if not self.entry:
            return ""
        return "\n".join([f"{self.section}:", *(f"  {line}" for line in self.entry), ""])
