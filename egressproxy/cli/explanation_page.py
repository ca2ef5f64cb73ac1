"""An ``Explanation`` as people and as programs read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from egressproxy.policy.explain import why
from egressproxy.policy.lookalike import decoded
from egressproxy.policy.verdict import Pass, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.policy.explain import Explanation
    from egressproxy.policy.rules import Rule
    from egressproxy.policy.verdict import Flow, Verdict


def facts(flow: Flow, verdict: Verdict, note: str) -> dict[str, Any]:
    """The JSON object of a verdict: every key always, in this order."""
    return {
        "name": flow.name,
        "address": flow.dst,
        "port": flow.port,
        "protocol": str(flow.protocol),
        "source": flow.src or None,
        "action": str(verdict.action),
        "reason": str(verdict.reason),
        "rule": verdict.rule_id,
        "pass": str(verdict.decided_by),
        "would_deny": verdict.would_deny,
        "note": note,
    }


def as_json(explanation: Explanation) -> dict[str, Any]:
    """The JSON object of an explanation: that of its verdict, and what explains it."""
    rule = explanation.rule
    return facts(explanation.flow, explanation.verdict, explanation.note) | {
        "source_group": explanation.source_group,
        "mentioned_as": explanation.mentioned_as,
        "origin": str(rule.origin) if rule else None,
        "requirement": rule.requirement if rule else None,
        "document": rule.origin.document if rule else "",
        "section": rule.origin.section if rule else "",
        "near_misses": [
            {
                "kind": str(miss.kind),
                "rule": miss.rule.id,
                "origin": str(miss.rule.origin),
                "text": miss.text,
            }
            for miss in explanation.near_misses
        ],
        "needed": list(explanation.needed),
        "symptom": explanation.symptom,
        "mode_note": explanation.mode_note,
    }


def page(explanation: Explanation) -> Iterator[str]:
    """Lines for a terminal, with colour codes."""
    verdict, rule = explanation.verdict, explanation.rule
    yield _headline(explanation)
    if rule is not None:
        yield _field("rule", f"{rule.id}{_mentioned(explanation)}")
        yield _field("from", _origin(rule))
    if verdict.decided_by is not Pass.NONE:
        how = "by address" if verdict.decided_by is Pass.NETWORK else "by name"
        yield _field("pass", f"{verdict.decided_by} ({how})")
    if explanation.note:
        yield _field("note", explanation.note)
    if explanation.symptom:
        yield _field("seen", explanation.symptom)
    if explanation.mode_note:
        yield _field("mode", explanation.mode_note)
    for place, miss in enumerate(explanation.near_misses):
        label = "" if place else "near"
        yield _field(label, f"{miss.rule.id}: {miss.text}  {_dim(str(miss.rule.origin))}")
    for place, line in enumerate(explanation.needed):
        yield _field("" if place else "needed", line)


def _headline(explanation: Explanation) -> str:
    flow, verdict = explanation.flow, explanation.verdict
    colour = "green" if verdict.is_allow else "red"
    if verdict.would_deny:
        colour = "yellow"
    shown = flow.name or flow.dst or ""
    if flow.name is not None and (plain := decoded(flow.name)) != flow.name:
        shown = f"{flow.name} ({_printable(plain)})"
    parts = [click.style(str(verdict.action), fg=colour, bold=True), shown]
    parts.append(f"{flow.protocol}:{flow.port}")
    if flow.src:
        group = explanation.source_group
        parts.append(f"from {flow.src}" + (f" ({group})" if group else ""))
    line = "  ".join(parts)
    if verdict.would_deny:
        mode = "warn-on-new" if verdict.reason is Reason.NEW_NAME else "audit"
        return f"{line}  {mode}: enforcing denies it, {verdict.reason}"
    if verdict.is_allow:
        return line
    return f"{line}  {verdict.reason}: {why(verdict.reason)}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _mentioned(explanation: Explanation) -> str:
    return f", {explanation.mentioned_as}" if explanation.mentioned_as else ""


def _origin(rule: Rule) -> str:
    origin = rule.origin
    source = ", ".join(part for part in (origin.document, origin.section) if part)
    return f"{origin}  {_dim(source)}" if source else str(origin)


def _field(label: str, text: str) -> str:
    return f"  {_dim(f'{label:<7}')} {text}"


def _dim(text: str) -> str:
    return click.style(text, dim=True)
