"""Findings of the lint as people and as programs read them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from egressproxy.policy.lint import Finding


def finding_line(finding: Finding, file: Path) -> str:
    """``file:line: severity: rule: text, hint: … [code]``; one of no rule is about the file."""
    return str(finding) if finding.origin is not None else f"{file}: {finding}"


def summary(findings: Sequence[Finding]) -> str:
    """``2 warnings, 1 info, 3 accepted``."""
    counts = _counts(findings)
    told = [
        f"{count} {word}" + ("s" if word == "warning" and count != 1 else "")
        for word, count in counts.items()
        if count
    ]
    return ", ".join(told) or "nothing found"


def as_object(file: Path, findings: Sequence[Finding]) -> dict[str, Any]:
    """The JSON object: every key always; findings that are accepted are marked."""
    counts = _counts(findings)
    return {
        "file": str(file),
        "warnings": counts["warning"],
        "infos": counts["info"],
        "accepted": counts["accepted"],
        "findings": [_finding(finding) for finding in findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    origin = finding.origin
    return {
        "code": str(finding.code),
        "severity": str(finding.severity),
        "accepted": finding.accepted,
        "rule": finding.rule_id,
        "file": origin.file if origin else None,
        "line": origin.line if origin else None,
        "column": origin.column if origin else None,
        "text": finding.text,
        "hint": finding.hint,
    }


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counts = Counter("accepted" if one.accepted else str(one.severity) for one in findings)
    return {word: counts[word] for word in ("warning", "info", "accepted")}
