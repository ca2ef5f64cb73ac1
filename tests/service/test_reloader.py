"""Reload decisions without processes: coalescing, failures, expiry, what is watched afterwards."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from egressproxy.errors import KernelError, ServiceError, StoreError
from egressproxy.policy.known import known_of
from egressproxy.service import reload as reload_module
from egressproxy.service.forwarded import Revocation
from egressproxy.service.generation import load_generation
from egressproxy.service.reload import Reloader
from egressproxy.service.report import Installation, Outcome, ReloadReport, Trigger
from tests.policy.tag_file import tag_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from egressproxy.policy.known import Known
    from egressproxy.policy.rules import Policy
    from egressproxy.service.crew import Crew
    from egressproxy.service.firewall import Firewall
    from egressproxy.service.generation import Generation
    from egressproxy.service.reload import Gate

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_blocking")]

POLICY = """\
version: 1
cloud: AzureCloud
rules:
  - {name: one, to: [one.test], ports: [https]}
"""
MORE = POLICY + "  - {name: two, to: [two.test], ports: [https]}\n"
BAD = POLICY + "  - {name: one, to: ['*'], ports: [ftp]}\n"


@dataclass
class FakeCrew:
    """Takes every generation, or none."""

    current: Any
    failure: str = ""
    installed: list[int] = field(default_factory=list)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    steps: list[str] = field(default_factory=list)

    async def install(
        self, new: Generation, before_commit: Callable[[], Awaitable[None]] | None = None
    ) -> Installation:
        await self.may_go_on.wait()
        if self.failure:
            raise ServiceError(self.failure)
        self.steps.append("prepared")
        if before_commit is not None:
            await before_commit()
        self.steps.append("committed")
        if new is not self.current:
            self.current.close()
        self.current = new
        self.installed.append(new.number)
        return Installation(workers=2, revoked=1, kept=0, stall_s=0.001)


@dataclass
class FakeFirewall:
    """Says into the crew's steps what it is asked."""

    crew: FakeCrew

    async def close_first(self, new: Generation) -> None:
        assert new is not self.crew.current
        self.crew.steps.append("closed")

    async def open_last(self) -> Revocation:
        self.crew.steps.append("opened")
        return Revocation(revoked=3)


class RefusesOnce(FakeFirewall):
    """Does not take the first policy that it is given."""

    async def close_first(self, new: Generation) -> None:
        if "refused" not in self.crew.steps:
            self.crew.steps.append("refused")
            raise KernelError("nft: no")
        await super().close_first(new)


@dataclass
class Bench:
    """A reloader at work on a policy file."""

    path: Path
    crew: FakeCrew
    reloader: Reloader
    reports: list[ReloadReport]

    async def request(self, *triggers: Trigger) -> ReloadReport:
        async with asyncio.timeout(10):
            return await self.reloader.request(*(triggers or (Trigger.ADMIN,)))


@asynccontextmanager
async def bench(
    tmp_path: Path,
    text: str = POLICY,
    firewall: type[FakeFirewall] | None = None,
    gate: Gate | None = None,
    known: Callable[[Policy], Known | None] | None = None,
) -> AsyncIterator[Bench]:
    path = tmp_path / "policy.yaml"
    write(path, text)
    crew = FakeCrew(await asyncio.to_thread(load_generation, path, 1, allow_outside=False))
    crew.may_go_on.set()
    reports: list[ReloadReport] = []
    reloader = Reloader(
        path,
        cast("Crew", crew),
        allow_outside=False,
        on_report=reports.append,
        firewall=cast("Firewall", firewall(crew)) if firewall else None,
        gate=gate,
        known=known,
    )
    async with asyncio.TaskGroup() as group:
        duties = [
            group.create_task(reloader.run()),
            group.create_task(reloader.reload_at_expiries()),
            group.create_task(reloader.keep_known()),
        ]
        yield Bench(path, crew, reloader, reports)
        for duty in duties:
            duty.cancel()
    crew.current.close()


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_applied(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        before = at.crew.current.policy.digest
        write(at.path, MORE)
        report = await at.request()
        assert report.outcome is Outcome.APPLIED
        assert report.is_ok
        assert (report.previous, report.digest) == (before, at.crew.current.policy.digest)
        assert report.changes == ("+ rule rules/two: allow two.test on tls:443",)
        assert report.installation.workers == 2
        assert at.reports == [report]


@dataclass
class FakeGate:
    """Objects, or cannot tell; says how often it was asked."""

    objects: str = ""
    fault: StoreError | None = None
    asked: int = 0

    async def objection(self, old: Generation, new: Generation) -> str:
        assert old.policy.digest != new.policy.digest
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return self.objects


async def test_a_gate_that_objects_keeps_the_old_policy(tmp_path: Path) -> None:
    gate = FakeGate("it would newly deny 7 of 9 flows: up.test:443 (7); 0 are accepted")
    async with bench(tmp_path, firewall=FakeFirewall, gate=gate) as at:
        before = at.crew.current.policy.digest
        write(at.path, MORE)
        report = await at.request()
        assert report.outcome is Outcome.REFUSED
        assert report.error == gate.objects
        assert (report.digest, at.crew.current.policy.digest) == (before, before)
        assert report.changes, "what was wanted is told"
        assert at.crew.steps == [], "neither workers nor kernel heard of it"
        write(at.path, POLICY)
        assert (await at.request()).outcome is Outcome.UNCHANGED
        assert gate.asked == 1, "the same policy is not asked about"


async def test_the_operator_can_insist(tmp_path: Path) -> None:
    gate = FakeGate("too many")
    async with bench(tmp_path, gate=gate) as at:
        write(at.path, MORE)
        report = await at.request(Trigger.ADMIN, Trigger.FORCED)
        assert report.outcome is Outcome.APPLIED
        assert report.triggers == (Trigger.ADMIN, Trigger.FORCED)
        assert gate.asked == 0
        write(at.path, POLICY)
        assert (await at.request()).outcome is Outcome.REFUSED, "once"


async def test_a_gate_that_agrees(tmp_path: Path) -> None:
    gate = FakeGate()
    async with bench(tmp_path, gate=gate) as at:
        write(at.path, MORE)
        assert (await at.request()).outcome is Outcome.APPLIED
        assert gate.asked == 1


async def test_a_gate_that_cannot_tell_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("egressproxy.service.reload.FIRST_RETRY_S", 0.01)
    gate = FakeGate(fault=StoreError("the database is away"))
    async with bench(tmp_path, gate=gate) as at:
        write(at.path, MORE)
        report = await at.request()
        assert (report.outcome, report.error) == (Outcome.FAILED, "the database is away")
        gate.fault = None
        async with asyncio.timeout(10):
            while at.reports[-1].outcome is not Outcome.APPLIED:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.005)
        assert Trigger.RETRY in at.reports[-1].triggers, "nobody had to ask"


ORDER = ["prepared", "closed", "committed", "opened"]


async def test_the_kernel_closes_before_the_commit_and_opens_after_it(tmp_path: Path) -> None:
    async with bench(tmp_path, firewall=FakeFirewall) as at:
        write(at.path, MORE)
        report = await at.request()
        assert at.crew.steps == ORDER
        assert report.forwarded == Revocation(revoked=3)


async def test_a_date_takes_the_same_way(tmp_path: Path) -> None:
    async with bench(tmp_path, firewall=FakeFirewall) as at:
        await at.request(Trigger.EXPIRY)
        assert at.crew.steps == ORDER
        write(at.path, BAD)
        await at.request(Trigger.EXPIRY)  # the policy in force has dates of its own
        assert at.crew.steps == ORDER * 2


async def test_what_the_kernel_refuses_is_a_failed_reload_that_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "FIRST_RETRY_S", 0.01)
    async with bench(tmp_path, firewall=RefusesOnce) as at:
        before = at.crew.current
        write(at.path, MORE)
        report = await at.request()
        assert (report.outcome, report.error) == (Outcome.FAILED, "nft: no")
        assert at.crew.current is before
        async with asyncio.timeout(10):
            while len(at.reports) < 2:  # noqa: ASYNC110 - the reports know no event
                await asyncio.sleep(0.01)
        assert at.reports[1].outcome is Outcome.APPLIED
        assert at.reports[1].triggers == (Trigger.ADMIN, Trigger.RETRY)
        assert at.crew.steps == ["prepared", "refused", *ORDER]


async def test_unchanged_touches_no_worker(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        write(at.path, "# a comment\n" + POLICY)
        report = await at.request()
        assert report.outcome is Outcome.UNCHANGED
        assert not at.crew.installed


async def test_a_newer_service_tag_file_that_judges_alike_is_the_policys(tmp_path: Path) -> None:
    text = POLICY + "  - {name: sql, to: ['tag:Sql'], ports: ['tcp:1433']}\nservice_tags: t.json\n"
    (tmp_path / "t.json").write_text(tag_file(change_number=374))
    async with bench(tmp_path, text) as at:
        digest = at.crew.current.policy.digest
        await asyncio.to_thread((tmp_path / "t.json").write_text, tag_file(change_number=375))
        report = await at.request()
        assert (report.outcome, report.digest) == (Outcome.UNCHANGED, digest)
        assert not at.crew.installed
        assert report.service_tags is not None
        assert report.service_tags.change_number == 375
        assert at.crew.current.policy.service_tags == report.service_tags
        other = {("Sql", ""): ["20.9.0.0/16"]}
        await asyncio.to_thread((tmp_path / "t.json").write_text, tag_file(other))
        report = await at.request()
        assert report.outcome is Outcome.APPLIED
        (change,) = report.changes
        assert change.startswith("~ rule rules/sql: the ranges of its service tags changed")
        gone = {("Storage", ""): ["20.9.0.0/16"]}
        await asyncio.to_thread((tmp_path / "t.json").write_text, tag_file(gone))
        report = await at.request()
        assert (report.outcome, report.service_tags) == (Outcome.REFUSED, None)
        assert at.crew.current.policy.service_tags.change_number == 374


async def test_refused_with_every_problem(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        write(at.path, BAD)
        report = await at.request()
        assert report.outcome is Outcome.REFUSED
        assert not report.is_ok
        assert len(report.problems) == 3
        assert report.digest == at.crew.current.policy.digest
        assert not at.crew.installed


async def test_failed_in_a_worker(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.crew.failure = "worker 1 did not answer"
        write(at.path, MORE)
        report = await at.request()
        assert (report.outcome, report.error) == (Outcome.FAILED, "worker 1 did not answer")
        at.crew.failure = ""
        assert (await at.request()).outcome is Outcome.APPLIED


async def test_what_failed_is_tried_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "FIRST_RETRY_S", 0.01)
    async with bench(tmp_path) as at, asyncio.timeout(10):
        at.crew.failure = "worker 1 did not answer"
        write(at.path, MORE)
        await at.request(Trigger.FILE)
        while len(at.reports) < 3:  # noqa: ASYNC110 - the reports know no event
            await asyncio.sleep(0.005)
        at.crew.failure = ""
        while at.reports[-1].outcome is Outcome.FAILED:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert at.reports[-1].outcome is Outcome.APPLIED
        assert set(at.reports[-1].triggers) == {Trigger.FILE, Trigger.RETRY}


async def test_who_waits_is_told_of_the_end(tmp_path: Path) -> None:
    async with bench(tmp_path) as at, asyncio.timeout(10):
        at.crew.may_go_on.clear()
        write(at.path, MORE)
        waiting = asyncio.ensure_future(at.reloader.request(Trigger.ADMIN))  # noqa: TID251
        while at.reloader._number < 2:  # noqa: ASYNC110 - begun, and held by the crew
            await asyncio.sleep(0)
    with pytest.raises(ServiceError, match="ending"):
        await waiting


async def test_a_fault_of_the_loader_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Generation:
        raise RecursionError("deep")

    async with bench(tmp_path) as at:
        with monkeypatch.context() as patch:
            patch.setattr(reload_module, "load_generation", broken)
            report = await at.request()
        assert report.outcome is Outcome.REFUSED
        assert "deep" in report.error
        write(at.path, MORE)
        assert (await at.request()).outcome is Outcome.APPLIED


async def test_requests_during_a_reload_share_the_next(tmp_path: Path) -> None:
    async with bench(tmp_path) as at, asyncio.timeout(10):
        at.crew.may_go_on.clear()
        write(at.path, MORE)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(at.request(Trigger.FILE))
            while at.reloader._number < 2:  # noqa: ASYNC110 - begun, and held by the crew
                await asyncio.sleep(0)
            others = [group.create_task(at.request(Trigger.ADMIN)) for _ in range(10)]
            at.reloader.poke(Trigger.SIGNAL)
            await asyncio.sleep(0)
            at.crew.may_go_on.set()
        assert first.result().triggers == (Trigger.FILE,)
        assert {id(other.result()) for other in others} == {id(others[0].result())}
        assert others[0].result().triggers == (Trigger.ADMIN, Trigger.SIGNAL)
        assert others[0].result().outcome is Outcome.UNCHANGED
        assert len(at.reports) == 2


async def test_a_file_that_is_missing_is_waited_for(tmp_path: Path) -> None:
    text = POLICY + "  - {name: sql, to: ['tag:Sql'], ports: ['tcp:1433']}\n"
    async with bench(tmp_path) as at:
        write(at.path, text + "service_tags: later.json\n")
        assert (await at.request()).outcome is Outcome.REFUSED
        assert at.path.parent / "later.json" in at.reloader.watched().files
        write(at.path, text + "service_tags: ../later.json\n")
        assert (await at.request()).outcome is Outcome.REFUSED
        assert at.path.parent.parent / "later.json" not in at.reloader.watched().files


async def test_files_of_a_refused_policy_are_watched(tmp_path: Path) -> None:
    team = tmp_path / "team.yaml"
    write(team, "rules: [{name: t, to: ['*'], ports: [https]}]\n")
    async with bench(tmp_path) as at:
        begun = time.time_ns()
        write(at.path, POLICY + "include: [team.yaml]\n")
        assert (await at.request()).outcome is Outcome.REFUSED
        watched = at.reloader.watched()
        assert {path.name for path in watched.files} == {"policy.yaml", "team.yaml"}
        assert watched.read_at_ns >= begun
        write(at.path, POLICY)
        await at.request()
        assert {path.name for path in at.reloader.watched().files} == {"policy.yaml"}


class Expiring:
    """A ruleset in which a date takes effect at a moment."""

    def __init__(self, moment: float) -> None:
        self._moment = moment

    def next_expiry(self, now: float) -> float | None:
        return self._moment if now < self._moment else None


@pytest.mark.parametrize("is_bad", [False, True], ids=["same files", "bad files meanwhile"])
async def test_an_expiry_is_an_ordinary_reload_of_the_same_policy(
    is_bad: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Generation] = load_generation
    moment = time.time() + 0.05

    def expiring(path: Path, number: int, **more: Any) -> Generation:
        made = real(path, number, **more)
        object.__setattr__(made, "ruleset", Expiring(moment))
        return made

    monkeypatch.setattr(f"{__name__}.load_generation", expiring)
    monkeypatch.setattr(reload_module, "load_generation", expiring)
    monkeypatch.setattr(reload_module, "renew", lambda old, _: old)
    async with bench(tmp_path) as at, asyncio.timeout(10):
        if is_bad:
            write(at.path, BAD)
        while not at.reports:  # noqa: ASYNC110 - the reports know no event
            await asyncio.sleep(0.005)
        assert time.time() >= moment
        (report,) = at.reports
        assert report.triggers == (Trigger.EXPIRY,)
        assert report.outcome is (Outcome.REFUSED if is_bad else Outcome.APPLIED)
        assert report.changes == ()
        assert len(at.crew.installed) == 1, "the open flows are judged again, by old or new"
        await at.request()
        assert len(at.reports) == 2, "once"


class Clock:
    """The wall clock, to be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s = 0.0
        self._real = time.time
        monkeypatch.setattr(time, "time", self)

    def __call__(self) -> float:
        return self._real() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def moment(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> float:
    """When a date of every policy takes effect: in an hour."""
    real: Callable[..., Generation] = load_generation
    moment = clock() + 3600

    def expiring(path: Path, number: int, **more: Any) -> Generation:
        made = real(path, number, **more)
        object.__setattr__(made, "ruleset", Expiring(moment))
        return made

    def renewed(old: Generation, number: int) -> Generation:
        return replace(old, number=number, descriptors=(), loaded_at=clock())

    monkeypatch.setattr(f"{__name__}.load_generation", expiring)
    monkeypatch.setattr(reload_module, "load_generation", expiring)
    monkeypatch.setattr(reload_module, "renew", renewed)
    monkeypatch.setattr(reload_module, "EXPIRY_RECHECK_S", 0.01)
    monkeypatch.setattr(reload_module, "FIRST_RETRY_S", 0.01)
    return moment


async def installed(at: Bench, count: int) -> None:
    async with asyncio.timeout(10):
        while len(at.crew.installed) < count:  # noqa: ASYNC110 - the crew knows no event
            await asyncio.sleep(0.005)


async def test_a_date_that_the_kernel_did_not_take_is_tried_again_though_the_files_are_bad(
    tmp_path: Path, clock: Clock, moment: float
) -> None:
    """The kernel knows no dates: it would forward by a rule that is over for ever."""
    async with bench(tmp_path, firewall=RefusesOnce) as at:
        write(at.path, BAD)
        clock.ahead_s = 3600
        await installed(at, 1)
        assert at.crew.steps == ["prepared", "refused", *ORDER]
        assert at.crew.current.loaded_at >= moment


class RefusesMore(FakeFirewall):
    """Takes the first policy, whatever the day, and no policy that is larger."""

    async def close_first(self, new: Generation) -> None:
        if len(new.policy.rules) > 1:
            raise KernelError("nft did not end within 30 s")
        await super().close_first(new)


async def test_a_date_counts_though_the_kernel_refuses_what_the_files_say_by_now(
    tmp_path: Path, clock: Clock, moment: float
) -> None:
    async with bench(tmp_path, firewall=RefusesMore) as at:
        write(at.path, MORE)
        assert (await at.request()).outcome is Outcome.FAILED
        clock.ahead_s = 3600
        await installed(at, 1)
        assert len(at.crew.current.policy.rules) == 1
        assert at.crew.current.loaded_at >= moment


async def test_a_date_takes_effect_again_when_the_clock_was_set_back(
    tmp_path: Path, clock: Clock, moment: float
) -> None:
    async with bench(tmp_path, firewall=FakeFirewall) as at:
        clock.ahead_s = 3600
        await installed(at, 1)
        clock.ahead_s = 0
        write(at.path, MORE)
        assert (await at.request()).outcome is Outcome.APPLIED
        assert at.crew.current.loaded_at < moment
        clock.ahead_s = 3600
        await installed(at, 3)
        assert at.crew.current.loaded_at >= moment


WARNING = POLICY.replace("rules:", "mode: warn-on-new\nwarn_until: 2999-12-31\nrules:")


@dataclass
class Memory:
    """What is known, as the store would tell; an error is raised instead."""

    known: Known | None = None
    error: Exception | None = None
    asked: int = 0

    def __call__(self, policy: Policy) -> Known | None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.known


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():  # noqa: ASYNC110 - a thread answers
            await asyncio.sleep(0.001)


async def test_known_names_travel_with_a_generation_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "KNOWN_S", 0.001)
    memory = Memory()
    async with bench(tmp_path, WARNING, FakeFirewall, known=memory) as at:
        await until(lambda: memory.asked > 2)
        assert at.crew.installed == []  # nothing is known, as before
        memory.known = known_of(["a.test"])
        await until(lambda: len(at.crew.installed) == 1)
        asked = memory.asked
        await until(lambda: memory.asked > asked + 2)
        assert len(at.crew.installed) == 1  # the same names are no news
        assert at.crew.current.ruleset.program.known is memory.known
        assert at.crew.steps == ["prepared", "committed"]  # the kernel has no part in it
        assert at.reports == []
        memory.known = None
        await until(lambda: len(at.crew.installed) == 2)
        assert at.crew.current.ruleset.program.known is None


async def test_a_reload_takes_the_known_names_of_the_moment(tmp_path: Path) -> None:
    memory = Memory(known_of(["a.test"]))
    async with bench(tmp_path, known=memory) as at:
        write(at.path, WARNING)
        report = await at.request()
        assert report.outcome is Outcome.APPLIED
        assert at.crew.current.ruleset.program.known is memory.known


async def test_names_that_cannot_be_told_or_taken_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "KNOWN_S", 0.001)
    memory = Memory(error=OSError("no descriptor"))
    async with bench(tmp_path, WARNING, known=memory) as at:
        await until(lambda: memory.asked > 2)
        memory.known, memory.error, at.crew.failure = known_of(["a.test"]), None, "hung"
        asked = memory.asked
        await until(lambda: memory.asked > asked + 2)
        assert at.crew.installed == []
        at.crew.failure = ""
        await until(lambda: len(at.crew.installed) == 1)


async def test_other_policies_are_not_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "KNOWN_S", 0.001)
    memory = Memory(known_of(["a.test"]))
    async with bench(tmp_path, known=memory) as at:
        await at.request()
        assert memory.asked == 1  # by the load, whose policy says that it is not asked for
        assert at.crew.installed == []
