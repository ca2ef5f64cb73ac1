"""A day to review, as a log: one requirement missing, a name missing, noise, an exfiltration."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

from egressproxy.observe.record import NameSource, Plane, to_json_line
from egressproxy.policy.verdict import Action, Pass, Reason
from tests.review.subjects import record

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.observe.record import FlowRecord

POLICY = """\
version: 1
cloud: AzureCloud
parameters: {location: japaneast}
sources: {cluster-a: [10.240.0.0/16]}
requirements: [aks/ntp]
rules:
  - {name: partner, to: ["*.partner.example"], ports: [https]}
  - {name: idle, to: [idle.example], ports: [https]}
  - {name: no-gists, action: deny, to: [gist.github.com], ports: [https]}
"""
HOSTILE = "\x1b[31m<b>\u202e=1+1\r\n"


def denied(name: str | None, count: int = 1, **more: Any) -> FlowRecord:
    """Flows that no rule matched, folded."""
    by_default = {"action": Action.DENY, "reason": Reason.DEFAULT_DENY, "rule": None}
    return record(name, **{**by_default, "decided_by": Pass.NONE, "count": count, **more})


def day() -> list[FlowRecord]:
    """Some minutes ago."""
    at = time.time() - 600
    found = [
        record("api.partner.example", rule="rules/partner", count=40),
        denied("packages.aks.azure.com", 30),
        denied("lab-1.hcp.japaneast.azmk8s.io", 20),
        denied("api.example.com", 5),
        denied("gist.github.com", 4, reason=Reason.RULE, rule="rules/no-gists"),
        denied("md-a1b2.z1.blob.storage.azure.net", 60),
        denied("stolen.blob.core.windows.net", 3),
        denied(HOSTILE, 2),
        denied("db.example", 2, plane=Plane.NETWORK, protocol="tcp", dst_port=5432,
               name_source=NameSource.DNS, dst_ip="20.9.9.9"),
        denied("slow.example", 1, reason=Reason.MALFORMED_HELLO),
    ]  # fmt: skip
    stolen = (hashlib.sha256(bytes([n])).hexdigest()[:32] for n in range(60))
    found += [denied(f"{part}.t.exfil.example", src_ip="10.244.7.66") for part in stolen]
    return [each._replace(time=at) for each in found]


def write_day(folder: Path) -> Path:
    """The day as a log in a folder that has the policy beside it."""
    (folder / "policy.yaml").write_text(POLICY)
    log = folder / "flows.jsonl"
    log.write_bytes(b"".join(map(to_json_line, day())))
    return log
