"""What became of a reload: the record that log, metrics, history and the HTTP answer share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

from egressproxy.service.forwarded import NOTHING_REVOKED
from egressproxy.service.journal import journal

if TYPE_CHECKING:
    from egressproxy.errors import Problem
    from egressproxy.policy.tag_edition import TagEdition
    from egressproxy.service.forwarded import Revocation


class Trigger(StrEnum):
    """Who asked for a reload."""

    START = "start"
    FILE = "file"
    SIGNAL = "signal"
    ADMIN = "admin"
    EXPIRY = "expiry"
    RETRY = "retry"
    """The one before failed in a worker."""
    FORCED = "forced"
    """However many flows it newly denies."""


class Outcome(StrEnum):
    """What became of it."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    """The files say what is in force already."""
    REFUSED = "refused"
    """The policy has problems, or would newly deny too much; the old one stays."""
    FAILED = "failed"
    """The policy could not be taken now; the old one stays everywhere, and it is tried again."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What a new policy did in all workers together.

    ``revoked`` and ``kept`` count open flows that it denies, closed or left open by ``on_reload``.
    ``stall_s`` is the longest time in which some worker's engine could not run on its account.
    """

    workers: int = 0
    revoked: int = 0
    kept: int = 0
    stall_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadReport:
    """One reload. ``changes`` is the semantic difference in words; ``at`` is POSIX seconds."""

    outcome: Outcome
    triggers: tuple[Trigger, ...]
    at: float
    digest: str
    """The policy in force after the reload."""
    duration_s: float = 0.0
    previous: str = ""
    changes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    error: str = ""
    installation: Installation = Installation()
    forwarded: Revocation = NOTHING_REVOKED
    """Connections through the kernel that the new policy denies."""
    service_tags: TagEdition | None = None
    """Of the policy that was read, where it names a service tag file."""

    @property
    def is_ok(self) -> bool:
        """Whether what the files say is in force."""
        return self.outcome in (Outcome.APPLIED, Outcome.UNCHANGED)


def announce(report: ReloadReport) -> None:
    """Write a report to the journal: what changed in words, or every problem."""
    facts = {
        "trigger": [str(trigger) for trigger in report.triggers],
        "digest": report.digest,
        "duration_ms": round(report.duration_s * 1000, 1),
    }
    tags = {"service_tags": str(report.service_tags)} if report.service_tags else {}
    match report.outcome:
        case Outcome.APPLIED if Trigger.START in report.triggers:
            journal().info("policy loaded", digest=report.digest, **tags)
        case Outcome.APPLIED:
            done = report.installation
            journal().info(
                "policy reloaded",
                **facts,
                changes=list(report.changes),
                revoked=done.revoked,
                kept=done.kept,
                kernel_revoked=report.forwarded.revoked,
                kernel_kept=report.forwarded.kept,
                stall_ms=round(done.stall_s * 1000, 1),
                **tags,
            )
        case Outcome.UNCHANGED:
            journal().info("policy unchanged", **facts, **tags)
        case Outcome.REFUSED | Outcome.FAILED:
            journal().error(
                "policy refused, the old one stays",
                **facts,
                error=report.error,
                problems=[str(problem) for problem in report.problems],
            )
        case _:
            assert_never(report.outcome)


def report_view(report: ReloadReport) -> dict[str, Any]:
    """A reload as JSON, with every problem or every change; for HTTP and for the history."""
    done = report.installation
    return {
        "outcome": str(report.outcome),
        "triggers": [str(trigger) for trigger in report.triggers],
        "at": moment(report.at),
        "duration_ms": round(report.duration_s * 1000, 3),
        "digest": report.digest,
        "previous": report.previous or None,
        "changes": list(report.changes),
        "error": report.error or None,
        "problems": [asdict(problem) for problem in report.problems],
        "workers": done.workers,
        "revoked": done.revoked,
        "kept": done.kept,
        "kernel_revoked": report.forwarded.revoked,
        "kernel_kept": report.forwarded.kept,
        "stall_ms": round(done.stall_s * 1000, 3),
    }


def moment(seconds: float) -> str:
    """POSIX seconds as RFC 3339 text in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
