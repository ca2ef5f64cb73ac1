"""Subjects, counts and records made by hand, and a classifier that says what it is told."""

from __future__ import annotations

from itertools import count as numbers
from typing import TYPE_CHECKING, Any

from egressproxy.observe.record import FlowRecord, NameSource, Plane
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.review.model import Class, Finding, Subject, SubjectCount
from tests.policy.building import NOON

if TYPE_CHECKING:
    from collections.abc import Iterator

_IDS: Iterator[int] = numbers(1)


def subject(name: str | None = "a.example", **more: Any) -> Subject:
    """A denied TLS flow on port 443 of the transparent plane, unless ``more`` says otherwise."""
    return Subject(
        **{
            "id": next(_IDS),
            "gateway": "hub",
            "action": Action.DENY,
            "reason": Reason.DEFAULT_DENY,
            "rule": None,
            "decided_by": Pass.NONE,
            "would_deny": False,
            "plane": Plane.TRANSPARENT,
            "protocol": "tls",
            "src_ip": "10.240.0.4",
            "source_group": None,
            "dst_ip": "20.1.2.3",
            "dst_port": 443,
            "name": name,
            "name_source": NameSource.NONE if name is None else NameSource.SNI,
            "note": "",
            **more,
        }
    )


def allowed(name: str | None = "a.example", **more: Any) -> Subject:
    """The same, allowed by a rule."""
    by_rule = {"action": Action.ALLOW, "reason": Reason.RULE, "rule": "rules/a"}
    return subject(name, **{**by_rule, "decided_by": Pass.APPLICATION, **more})


def counted(one: Subject, count: int = 1, *, at: float = NOON) -> SubjectCount:
    """A subject with flows in the hour before ``at``."""
    return SubjectCount(subject=one, count=count, first_at=at - 3600, last_at=at)


def record(name: str | None, at: float = NOON - 60, **more: Any) -> FlowRecord:
    """A TLS flow that rule ``a`` allowed, unless ``more`` says otherwise."""
    return FlowRecord(
        **{
            "time": at,
            "flow_id": "1-1",
            "src_port": 40000,
            "action": Action.ALLOW,
            "reason": Reason.RULE,
            "plane": Plane.TRANSPARENT,
            "protocol": "tls",
            "src_ip": "10.240.0.4",
            "dst_port": 443,
            "rule": "a",
            "decided_by": Pass.APPLICATION,
            "name": name,
            "name_source": NameSource.SNI,
            **more,
        }
    )


class Told:
    """A classifier that says what a test tells it, by name or address; else unknown."""

    def __init__(self, **classes: tuple[str, ...]) -> None:
        self._kinds = {
            target: Class[kind.upper()] for kind, targets in classes.items() for target in targets
        }

    def finding(self, subject: Subject) -> Finding:
        kind = self._kinds.get(subject.target, Class.UNKNOWN)
        return Finding(kind=kind, why=f"told so of {subject.target}")
