"""Rules that never decide, because others of the same pass do before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.policy.lint_cover import Cover
from egressproxy.policy.lint_finding import Code, Finding, named
from egressproxy.policy.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from egressproxy.policy.lint_survey import Survey
    from egressproxy.policy.rules import Rule

_OPTIONS: Final = {
    Action.ALLOW: ("audit", "audit_until", "destination", "sni", "ech", "addresses"),
    Action.DENY: ("audit", "audit_until"),
}
"""What else a rule that decides says of a flow."""

_OF_ROWS: Final = frozenset({"action", "audit", "addresses"})
"""What a row of a requirement must not lose unseen."""

_CONTENT: Final = ("patterns", "networks", "tags", "any_destination", "ports", "sources", "until")
_VERBS: Final = {Action.ALLOW: ("allows", "allow"), Action.DENY: ("denies", "deny")}


def order_findings(survey: Survey) -> Iterator[Finding]:
    """Of each rule in force, and of each requirement that is listed again."""
    order = _Order(survey)
    for number, rule in survey.in_force():
        covered = order.cover.of(number)
        if covered is None:
            yield from order.of_parts(number, rule)
        else:
            yield from order.of_rule(rule, covered)
    yield from order.of_requirements()


class _Order:
    def __init__(self, survey: Survey) -> None:
        self.cover = Cover(survey)
        self._rules = survey.policy.rules
        self._listings: dict[tuple[object, ...], list[Rule]] = {}
        self._repeated: set[str] = set()
        for _, rule in survey.in_force():
            if rule.requirement is not None:
                self._listings.setdefault(_listing(rule), []).append(rule)

    def of_rule(self, rule: Rule, covered: set[int]) -> Iterator[Finding]:
        """Of a rule that others decide all of."""
        others = [self._rules[number] for number in sorted(covered)]
        changed = _changed(rule, others)
        if rule.requirement is not None:
            # Requirements overlap each other, and rules may be wider: nobody could remove a row.
            changed = _changed(rule, [one for one in others if not one.requirement]) & _OF_ROWS
            if not changed:
                if all(one.requirement == rule.requirement for one in others):
                    self._repeated.add(rule.id)
                return
        first = others[0]
        text = f"it never decides: {_says(others)} all of it before"
        if changed:
            lost = ", ".join(name for name in _OPTIONS[rule.action] if name in changed)
            if "action" not in changed:
                text = f"{text}, and its own {lost} do not count"
            yield Finding.of(rule, Code.SHADOWED, text, _way_out(rule, first, "it"))
        elif len(others) == 1 and _is_same(rule, first):
            text = f"it is the same as {_place(first)}"
            yield Finding.of(rule, Code.DUPLICATE, text, "remove one of them")
        else:
            yield Finding.of(rule, Code.REDUNDANT, text, "remove it")

    def of_parts(self, number: int, rule: Rule) -> Iterator[Finding]:
        """Of what a rule says itself (not its lists and tags), and another rule does otherwise."""
        dead: dict[int, list[str]] = {}
        parts = [
            (str(pattern), self.cover.of_name(number, str(pattern))) for pattern in rule.patterns
        ]
        if not rule.tags:
            parts += ((str(net), self.cover.of_network(number, net)) for net in rule.networks)
        for part, covered in parts:
            others = [self._rules[other] for other in sorted(covered or ())]
            if others and all(other.action is not rule.action for other in others):
                dead.setdefault(min(covered or ()), []).append(part)
        for other, texts in dead.items():
            first = self._rules[other]
            yield Finding.of(
                rule,
                Code.SHADOWED,
                f"{named(texts)} {'never counts' if len(texts) == 1 else 'never count'}:"
                f" {_says([first])} that before",
                _way_out(rule, first, "that"),
            )

    def of_requirements(self) -> Iterator[Finding]:
        """Of requirements that are listed again for the same clients."""
        for rules in self._listings.values():
            if all(rule.id in self._repeated for rule in rules):
                first = rules[0]
                text = f"{first.requirement} is listed before, for the same clients"
                yield Finding.of(first, Code.DUPLICATE, text, "remove one of them")


def _listing(rule: Rule) -> tuple[object, ...]:
    """One listing of a requirement; rows that are listed again differ in what follows the ``@``."""
    return (rule.requirement, rule.id.partition("@")[2], rule.origin.file, rule.origin.line)


def _changed(rule: Rule, others: Iterable[Rule]) -> set[str]:
    """What a rule says otherwise than those that decide before it."""
    return {
        name
        for name in ("action", *_OPTIONS[rule.action])
        for other in others
        if getattr(rule, name) != getattr(other, name)
    }


def _is_same(rule: Rule, other: Rule) -> bool:
    lists = [{id(names.entries) for names in one.lists} for one in (rule, other)]
    return lists[0] == lists[1] and all(
        _plain(getattr(rule, name)) == _plain(getattr(other, name)) for name in _CONTENT
    )


def _plain(value: object) -> object:
    return frozenset(value) if isinstance(value, tuple) else value


def _says(others: list[Rule]) -> str:
    """``rules/a (policy.yaml:9) allows``."""
    actions = {other.action for other in others}
    verbs = _VERBS[others[0].action] if len(actions) == 1 else ("decides", "decide")
    return f"{named([_place(other) for other in others])} {verbs[len(others) > 1]}"


def _way_out(rule: Rule, first: Rule, dead: str) -> str:
    if rule.requirement is not None:
        return f"narrow {first.id}, or accept it here if it is meant"
    return f"move it up, before {first.id}, or remove {dead}"


def _place(rule: Rule) -> str:
    return f"{rule.id} ({rule.origin})"
