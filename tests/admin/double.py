"""What the admin pages look at in tests: a supervisor without workers, its policy really loaded."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from egressproxy.observe.counters import Counters
from egressproxy.service.generation import load_generation
from egressproxy.service.options import RunOptions
from egressproxy.service.report import Outcome, ReloadReport, Trigger
from egressproxy.service.supervisor import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from egressproxy.errors import ServiceError
    from egressproxy.service.open_flows import OpenFlow
    from egressproxy.service.supervisor import Supervisor

CLUSTER_POLICY = """\
version: 1
cloud: AzureCloud
parameters:
  location: westeurope
  api_server_fqdn: lab-dns-1a2b3c4d.hcp.westeurope.azmk8s.io
  api_server_ips: [20.50.1.2]
  dns_servers: [10.0.0.10]
sources: {lab: [10.240.0.0/12], build: [10.241.4.0/24]}
requirements:
  - aks/core
rules:
  - {name: partner, to: ["*.partner.example"], ports: [https], from: [lab]}
  - {name: legacy, to: [legacy.partner.example], ports: [https], until: 2026-01-31}
  - {name: no-gists, action: deny, to: [gist.github.com], ports: [https]}
"""


@dataclass
class FakeCrew:
    """``current`` is a real generation."""

    current: Any
    slots: tuple[Any, ...] = ()


@dataclass
class FakeSupervisor:
    """``answers`` are what the next reloads come to, ``flows`` what is open."""

    counters: Counters
    options: RunOptions
    crew: FakeCrew | None = None
    phase: Phase = Phase.STARTING
    is_ready: bool = False
    last_reload: ReloadReport | None = None
    firewall: Any = None
    reloads: deque[ReloadReport] = field(default_factory=deque)
    answers: list[ReloadReport | ServiceError] = field(default_factory=list)
    asked: list[Trigger] = field(default_factory=list)
    flows: list[OpenFlow] = field(default_factory=list)

    async def open_flows(self) -> list[OpenFlow]:
        return list(self.flows)

    async def reload(self, *triggers: Trigger) -> ReloadReport:
        self.asked += triggers
        answer = self.answers.pop(0)
        if not isinstance(answer, ReloadReport):
            raise answer
        self.note(answer)
        return answer

    def note(self, report: ReloadReport) -> None:
        """Add to the history, as the supervisor does."""
        self.last_reload = report
        self.reloads.append(report)

    @property
    def as_supervisor(self) -> Supervisor:
        """What a page takes it for."""
        return cast("Supervisor", self)


@contextmanager
def serving_supervisor(
    folder: Path, policy: str = CLUSTER_POLICY, *, store: str | None = None
) -> Iterator[FakeSupervisor]:
    """One that serves a policy, which is written to ``folder``."""
    path = folder / "policy.yaml"
    path.write_text(policy)
    generation = load_generation(path, 1, allow_outside=False)
    counters = Counters.create(2)
    options = RunOptions(policy=path, listeners=(), workers=2, gateway="hub-nva-1")
    supervisor = FakeSupervisor(
        counters,
        replace(options, review_store=store),
        FakeCrew(generation),
        Phase.SERVING,
        is_ready=True,
    )
    supervisor.note(
        ReloadReport(
            outcome=Outcome.APPLIED,
            triggers=(Trigger.START,),
            at=generation.loaded_at,
            digest=generation.policy.digest,
        )
    )
    try:
        yield supervisor
    finally:
        counters.close()
        generation.close()
