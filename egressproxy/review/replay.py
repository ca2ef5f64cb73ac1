"""``replay``: recorded flows under another policy: newly allowed, newly denied, unchanged.

What cannot be judged is counted apart: the many of an overflow, flows that met a limit before
anybody asked the policy, flows that were allowed and failed, and denies that turned on more than
the record holds (``forbidden_address``, ``destination_mismatch``, ``host_mismatch``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from egressproxy.policy.verdict import Reason
from egressproxy.review.judging import Outcome, Unjudged, judge, outcome_of, recorded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.policy.verdict import Verdict
    from egressproxy.review.model import Subject, SubjectCount

MAX_SAMPLE: Final = 8
"""Client addresses that a change names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Flows to one target and port that get another answer.

    ``count`` is flows; ``sources`` are some of ``source_count`` client addresses, the busiest
    first. ``rule`` and ``reason`` are those of the new answer, ``old_rule`` that of the old one.
    ``subjects`` is all that was counted.
    """

    target: str
    protocol: str
    port: int
    before: Outcome
    after: Outcome
    count: int
    source_count: int
    sources: tuple[str, ...]
    rule: str | None
    old_rule: str | None
    reason: Reason
    first_at: float
    last_at: float
    subjects: tuple[SubjectCount, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What another policy would have done with recorded flows; changes have the commonest first.

    ``newly_allowed`` passes now (or is allowed where audit alone let it pass), ``newly_denied`` is
    refused now, ``newly_audited`` was allowed and passes by audit alone. The rest are numbers of
    flows; ``unjudged`` is parted by why.
    """

    newly_allowed: tuple[Change, ...]
    newly_denied: tuple[Change, ...]
    newly_audited: tuple[Change, ...]
    unchanged_allowed: int
    unchanged_denied: int
    unjudged: tuple[tuple[Unjudged, int], ...] = ()

    @property
    def newly_allowed_flows(self) -> int:
        """Flows in ``newly_allowed``."""
        return sum(change.count for change in self.newly_allowed)

    @property
    def newly_denied_flows(self) -> int:
        """Flows in ``newly_denied``."""
        return sum(change.count for change in self.newly_denied)

    @property
    def newly_audited_flows(self) -> int:
        """Flows in ``newly_audited``."""
        return sum(change.count for change in self.newly_audited)

    @property
    def unjudged_flows(self) -> int:
        """Flows in ``unjudged``."""
        return sum(count for _, count in self.unjudged)

    @property
    def flows(self) -> int:
        """All flows that were replayed."""
        changed = self.newly_allowed_flows + self.newly_denied_flows + self.newly_audited_flows
        return changed + self.unchanged_allowed + self.unchanged_denied + self.unjudged_flows


def replay(counts: Iterable[SubjectCount], old: Ruleset | None, new: Ruleset, now: float) -> Replay:
    """Judge recorded flows anew, some microseconds each.

    Args:
        counts: allows and denies.
        old: what the new policy is compared with; ``None``: with what was recorded.
        new: the candidate. Neither ruleset may be asked by another thread meanwhile.
        now: POSIX seconds at which both are asked.
    """
    tally = _Tally()
    for count in counts:
        subject = count.subject
        verdict = judge(subject, new, now)
        before, old_rule = _before(subject, old, now)
        if isinstance(verdict, Unjudged):
            tally.unjudged[verdict] += count.count
        elif isinstance(before, Unjudged):
            tally.unjudged[before] += count.count
        else:
            tally.add(count, before, verdict, old_rule)
    return tally.replay()


def _before(
    subject: Subject, old: Ruleset | None, now: float
) -> tuple[Outcome | Unjudged, str | None]:
    """What the new answer is compared with, and the rule it was given by."""
    verdict = Unjudged.TURNS_ON_MORE if old is None else judge(subject, old, now)
    if verdict is Unjudged.TURNS_ON_MORE:  # then at least it is known what became of it
        return recorded(subject), subject.rule
    if isinstance(verdict, Unjudged):
        return verdict, None
    return outcome_of(verdict), verdict.rule_id


_Key = tuple[str, str, int, Outcome, Outcome]


@dataclass(slots=True)
class _Group:
    verdict: Verdict
    old_rule: str | None
    subjects: list[SubjectCount] = field(default_factory=list)


@dataclass(slots=True)
class _Tally:
    """Grows by one subject after the other."""

    groups: dict[_Key, _Group] = field(default_factory=dict)
    unchanged: Counter[bool] = field(default_factory=Counter)
    unjudged: Counter[Unjudged] = field(default_factory=Counter)

    def add(
        self, count: SubjectCount, before: Outcome, verdict: Verdict, old_rule: str | None
    ) -> None:
        subject, after = count.subject, outcome_of(verdict)
        if after is before:
            self.unchanged[after is not Outcome.DENY] += count.count
            return
        key = (subject.target, subject.protocol, subject.dst_port, before, after)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = _Group(verdict, old_rule)
        group.subjects.append(count)

    def replay(self) -> Replay:
        allowed: list[Change] = []
        denied: list[Change] = []
        audited: list[Change] = []
        for key, group in self.groups.items():
            change = _change(key, group)
            if change.after.rank > change.before.rank:
                allowed.append(change)
            else:
                (denied if change.after is Outcome.DENY else audited).append(change)
        return Replay(
            newly_allowed=_commonest_first(allowed),
            newly_denied=_commonest_first(denied),
            newly_audited=_commonest_first(audited),
            unchanged_allowed=self.unchanged[True],
            unchanged_denied=self.unchanged[False],
            unjudged=tuple(self.unjudged.most_common()),
        )


def _change(key: _Key, group: _Group) -> Change:
    target, protocol, port, before, after = key
    sources: Counter[str] = Counter()
    for one in group.subjects:
        sources[one.subject.src_ip] += one.count
    return Change(
        target=target,
        protocol=protocol,
        port=port,
        before=before,
        after=after,
        count=sources.total(),
        source_count=len(sources),
        sources=tuple(source for source, _ in sources.most_common(MAX_SAMPLE)),
        rule=group.verdict.rule_id,
        old_rule=group.old_rule,
        reason=group.verdict.reason,
        first_at=min(one.first_at for one in group.subjects),
        last_at=max(one.last_at for one in group.subjects),
        subjects=tuple(group.subjects),
    )


def _commonest_first(changes: list[Change]) -> tuple[Change, ...]:
    return tuple(sorted(changes, key=lambda change: (-change.count, change.target, change.port)))
