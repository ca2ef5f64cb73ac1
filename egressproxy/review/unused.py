"""``unused``: the rules and requirements that nothing used, as far as records can tell.

A rule is used where a flow was recorded with its id, where the kernel counted packets for it, and
where it decides, in the policy of today, a flow that was recorded: so a rule that was renamed or
moved is still used. What cannot be told is not called unused: a rule whose flows nobody recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from egressproxy.policy.program import end_of_day
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.history import ALL, NONE
from egressproxy.review.history import Use as Recorded
from egressproxy.review.judging import Unjudged, judge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.policy.rules import Policy, Rule
    from egressproxy.policy.ruleset import Ruleset
    from egressproxy.review.history import RuleHistory

DAY_S: Final = 86400.0


class Use(StrEnum):
    """What is known of the use of a rule."""

    USED = "used"
    UNUSED = "unused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleUse:
    """One rule; ``why`` says what speaks against its state, or why there is none."""

    rule: Rule
    use: Use
    flows: int = 0
    packets: int = 0
    last_at: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementUse:
    """One requirement, as its rows are used; ``use`` is ``used`` where one of them is."""

    requirement: str
    use: Use
    rows: tuple[RuleUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """Every rule of a policy in its order; ``remarks`` are what to know before one is deleted.

    ``days`` is how many days of history there are, no more than were asked for.
    """

    rules: tuple[RuleUse, ...]
    days: float
    remarks: tuple[str, ...]

    @property
    def requirements(self) -> tuple[RequirementUse, ...]:
        """The requirements in the policy's order."""
        rows: dict[str, list[RuleUse]] = {}
        for each in self.rules:
            if each.rule.requirement is not None:
                rows.setdefault(each.rule.requirement, []).append(each)
        return tuple(
            RequirementUse(requirement=name, use=_together(uses), rows=tuple(uses))
            for name, uses in rows.items()
        )

    @property
    def written(self) -> tuple[RuleUse, ...]:
        """The rules that are no row of a requirement."""
        return tuple(each for each in self.rules if each.rule.requirement is None)


def rule_uses(policy: Policy, ruleset: Ruleset, history: RuleHistory, now: float) -> Uses:
    """The use of each rule.

    Args:
        policy: the one in force.
        ruleset: compiled from it, and not asked by another thread meanwhile.
        history: what was recorded.
        now: POSIX seconds.
    """
    decided = _decided(ruleset, history, now)
    rules = tuple(_of_rule(rule, history, decided, now) for rule in policy.rules)
    oldest = history.since if history.first_at is None else max(history.first_at, history.since)
    days = 0.0 if history.first_at is None else max(0.0, (now - oldest) / DAY_S)
    return Uses(rules=rules, days=days, remarks=tuple(_remarks(history, days, now)))


def _together(rows: Iterable[RuleUse]) -> Use:
    states = {row.use for row in rows}
    if Use.USED in states:
        return Use.USED
    return Use.UNKNOWN if Use.UNKNOWN in states else Use.UNUSED


def _decided(ruleset: Ruleset, history: RuleHistory, now: float) -> dict[str, Recorded]:
    """What each rule of today's policy decides of the flows that were recorded."""
    found: dict[str, Recorded] = {}
    for count in history.counts:
        verdict = judge(count.subject, ruleset, now)
        if isinstance(verdict, Unjudged) or verdict.reason is Reason.EXPIRED_RULE:
            continue
        if verdict.rule_id is not None:
            use = found.get(verdict.rule_id, Recorded())
            last_at = max(count.last_at, use.last_at or 0.0)
            found[verdict.rule_id] = Recorded(use.flows + count.count, 0, last_at)
    return found


def _of_rule(rule: Rule, history: RuleHistory, decided: dict[str, Recorded], now: float) -> RuleUse:
    noted = Recorded() if _is_by_place(rule) else history.by_rule.get(rule.id, Recorded())
    judged = decided.get(rule.id, Recorded())
    flows, packets = max(noted.flows, judged.flows), noted.packets
    if flows or packets:
        last_at = max(noted.last_at or 0.0, judged.last_at or 0.0)
        return RuleUse(rule=rule, use=Use.USED, flows=flows, packets=packets, last_at=last_at)
    if end_of_day(rule.until) <= now:
        return RuleUse(rule=rule, use=Use.UNUSED, why=f"expired on {rule.until}")
    if why := _untold(rule, history):
        return RuleUse(rule=rule, use=Use.UNKNOWN, why=why)
    return RuleUse(rule=rule, use=Use.UNUSED, why=_against(rule, history))


def _is_by_place(rule: Rule) -> bool:
    """Whether a rule's id is its place in the file, which another rule may have had."""
    return rule.requirement is None and rule.id.rpartition("rules/")[2].startswith("#")


def _untold(rule: Rule, history: RuleHistory) -> str:
    """Why records would not show its use, or an empty text."""
    if history.first_at is None:
        return "nothing is recorded"
    if rule.action is Action.DENY or history.allows == {ALL}:
        return ""
    is_network = all(not span.protocol.is_application for span in rule.ports)
    has_packets = any(use.packets for use in history.by_rule.values())
    if is_network and has_packets and not _is_by_place(rule):
        return ""
    if NONE in history.allows:
        return "allows are not recorded (--log-allows)"
    sampled = sorted(history.allows - {ALL})
    if sampled:
        return f"allows are recorded in part ({', '.join(sampled)})"
    has_allows = any(not count.subject.is_denied for count in history.counts)
    return "" if has_allows else "no allow is recorded"


def _against(rule: Rule, history: RuleHistory) -> str:
    if rule.sources == ():
        return "its sources are nobody"
    is_network = all(not span.protocol.is_application for span in rule.ports)
    if is_network and history.changed_at is not None and history.allows != {ALL}:
        return "the policy changed meanwhile: it may be younger than that"
    return ""


def _remarks(history: RuleHistory, days: float, now: float) -> Iterable[str]:
    wanted = (now - history.since) / DAY_S
    if history.first_at is None:
        yield "nothing is recorded: nothing can be said of any rule"
    elif days < wanted - 1:
        back = f"{days:.1f}" if days >= 1 else "less than one"
        yield f"records go back {back} of {wanted:.0f} days"
    if not history.allows and history.first_at is not None:
        yield "nobody says whether every allow was recorded: logs of others may have a sample"
