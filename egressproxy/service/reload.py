"""Reload: load, validate, compile, prepare in every worker, commit; any failure changes nothing.

A gate may object to what a good policy would newly deny; the operator can insist.

With the kernel's firewall: what the new policy denies is closed there before the commit, and what
it allows is opened there after it.

Whoever asks (a changed file, SIGHUP, ``POST /reload``, a rule that expires) asks ``Reloader``.
Requests that come while a reload runs share the next one, so a storm of them is two reloads.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from egressproxy.errors import KernelError, PolicyError, ServiceError, StoreError
from egressproxy.policy.diff import diff_rules
from egressproxy.policy.rules import Mode
from egressproxy.service.forwarded import NOTHING_REVOKED
from egressproxy.service.generation import load_generation, renew, renew_known
from egressproxy.service.journal import journal
from egressproxy.service.report import Outcome, ReloadReport, Trigger
from egressproxy.service.watch import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from egressproxy.policy.known import Known
    from egressproxy.policy.rules import Policy
    from egressproxy.service.crew import Crew
    from egressproxy.service.firewall import Firewall
    from egressproxy.service.forwarded import Revocation
    from egressproxy.service.generation import Generation
    from egressproxy.service.report import Installation

EXPIRY_RECHECK_S: Final = 30.0
"""The wall clock may be set meanwhile, so no wait for an expiry is longer: the kernel has no dates,
and forwards by a rule that is over until it is told."""
FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0
KNOWN_S: Final = 60.0
"""How often it is asked which names are known."""


class Gate(Protocol):
    """Who may object to a policy; ``service.reload_gate.ReloadGate`` is one."""

    async def objection(self, old: Generation, new: Generation) -> str:
        """Why the new policy shall not replace the old one; empty where it may.

        Raises:
            StoreError: it cannot be told now.
        """
        ...


@dataclass(slots=True)
class _Request:
    triggers: set[Trigger] = field(default_factory=set)
    waiting: list[asyncio.Future[ReloadReport]] = field(default_factory=list)


class Reloader:
    """Serialises and coalesces the reloads of a crew.

    Args:
        path: the policy.
        crew: whose ``current`` generation is replaced.
        allow_outside: whether includes may leave the policy's folder.
        on_report: called with every report before the requesters get it.
        firewall: what follows the crew's policy in the kernel, if anything.
        gate: what may object to a policy for what it denies, if anything.
        known: blocks, and says which names ``mode: warn-on-new`` does not take for new.
    """

    def __init__(
        self,
        path: Path,
        crew: Crew,
        *,
        allow_outside: bool,
        on_report: Callable[[ReloadReport], None],
        firewall: Firewall | None = None,
        gate: Gate | None = None,
        known: Callable[[Policy], Known | None] | None = None,
    ) -> None:
        self._path = path
        self._crew = crew
        self._allow_outside = allow_outside
        self._on_report = on_report
        self._firewall = firewall
        self._gate = gate
        self._known = known
        self._lock = asyncio.Lock()  # one at a time makes the next generation
        self._number = crew.current.number
        self._next = _Request()
        self._asked = asyncio.Event()
        self._applied = asyncio.Event()
        self._retry: asyncio.TimerHandle | None = None
        self._retry_delay_s = FIRST_RETRY_S
        self._watched = Watched(crew.current.policy.files, crew.current.read_at_ns)

    def watched(self) -> Watched:
        """The files whose change means a reload, those of a refused policy included."""
        return self._watched

    async def request(self, *triggers: Trigger) -> ReloadReport:
        """Ask for a reload that begins after this call, and await what became of it."""
        future: asyncio.Future[ReloadReport] = asyncio.get_running_loop().create_future()
        self._next.waiting.append(future)
        self.poke(*triggers)
        return await future

    def poke(self, *triggers: Trigger) -> None:
        """Ask for a reload without waiting for it."""
        self._next.triggers.update(triggers)
        self._asked.set()

    async def run(self) -> None:
        """Carry out requests, one after another, until cancelled."""
        request = self._next
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                request, self._next = self._next, _Request()
                async with self._lock:
                    report = await self._reload(tuple(sorted(request.triggers)))
                self._on_report(report)
                self._try_again_after(report)
                for future in request.waiting:
                    if not future.done():
                        future.set_result(report)
        finally:
            if self._retry is not None:
                self._retry.cancel()
            for future in (*request.waiting, *self._next.waiting):
                if not future.done():
                    future.set_exception(ServiceError("the service is ending"))

    def _try_again_after(self, report: ReloadReport) -> None:
        """What failed for a worker's sake is asked for again: the files will not change anew."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if report.outcome is not Outcome.FAILED:
            self._retry_delay_s = FIRST_RETRY_S
            return
        self._retry = asyncio.get_running_loop().call_later(
            self._retry_delay_s, self.poke, Trigger.RETRY, *report.triggers
        )
        self._retry_delay_s = min(2 * self._retry_delay_s, MAX_RETRY_S)

    async def reload_at_expiries(self) -> None:
        """Ask for a reload whenever a date in the policy takes effect; runs until cancelled.

        What came of it is seen by the generation in force: as long as that is from before the date,
        it is asked again. A clock that is set back makes a date take effect once more.
        """
        retry_s = 0.0
        while True:
            self._applied.clear()
            current = self._crew.current
            expiry = current.ruleset.next_expiry(current.loaded_at)
            wait_s = EXPIRY_RECHECK_S if expiry is None else max(expiry - time.time(), retry_s)
            try:
                async with asyncio.timeout(min(wait_s, EXPIRY_RECHECK_S)):
                    await self._applied.wait()
            except TimeoutError:
                if expiry is None or time.time() < expiry:
                    continue
                # The same policy is judged anew from that moment on: flows it now denies end.
                await self.request(Trigger.EXPIRY)
                is_over = self._crew.current.loaded_at >= expiry
                retry_s = 0.0 if is_over else max(FIRST_RETRY_S, min(2 * retry_s, MAX_RETRY_S))

    async def keep_known(self) -> None:
        """Let the workers know which names are not new any more; runs until cancelled."""
        while self._known is not None:
            try:
                async with self._lock:
                    await self._learn(self._known)
            except Exception as error:  # noqa: BLE001 - no review store may end the service
                journal().error("workers do not learn which names are known", exc_info=error)
            await asyncio.sleep(KNOWN_S)

    async def _learn(self, known: Callable[[Policy], Known | None]) -> None:
        """A generation of the same policy with the names of now; the kernel has no part in it."""
        current = self._crew.current
        if current.policy.mode is not Mode.WARN_ON_NEW:
            return
        names = await asyncio.to_thread(known, current.policy)
        if _digest(names) == _digest(current.ruleset.program.known):
            return
        self._number += 1
        again = await asyncio.to_thread(renew_known, current, self._number, names)
        try:
            await self._crew.install(again)
        except ServiceError:  # then it is not in force; whatever else ends this, it may be
            again.close()
            raise

    async def _reload(self, triggers: tuple[Trigger, ...]) -> ReloadReport:
        began = time.monotonic()
        report = ReloadReport(
            outcome=Outcome.UNCHANGED,
            triggers=triggers,
            at=time.time(),
            digest=self._crew.current.policy.digest,
        )
        self._number += 1
        try:
            new, changes = await self._load()
        except PolicyError as error:
            report = replace(
                report, outcome=Outcome.REFUSED, problems=error.problems, error="the policy is bad"
            )
            await self._judge_anew_if_expired(report)
        except Exception as error:  # noqa: BLE001 - no policy file may end the service
            journal().error("fault while loading a policy", exc_info=error)
            report = replace(report, outcome=Outcome.REFUSED, error=f"cannot be loaded: {error!r}")
            await self._judge_anew_if_expired(report)
        else:
            tags = new.policy.service_tags
            report = await self._apply(new, replace(report, changes=changes, service_tags=tags))
            if not report.is_ok:
                await self._judge_anew_if_expired(report)
        return replace(report, duration_s=time.monotonic() - began)

    async def _load(self) -> tuple[Generation, tuple[str, ...]]:
        """What the files say, and how it differs from what is in force."""
        read_at_ns = time.time_ns()
        old = self._crew.current.policy

        def load() -> tuple[Generation, tuple[str, ...]]:
            new = load_generation(
                self._path,
                self._number,
                allow_outside=self._allow_outside,
                known=self._known,
            )
            return new, tuple(map(str, diff_rules(old, new.policy)))

        try:
            new, changes = await asyncio.to_thread(load)
        except PolicyError as error:
            # The cure may be an edit to a file that only the refused policy has.
            self._watch({*self._watched.files, *error.files}, read_at_ns)
            raise
        self._watch(new.policy.files, new.read_at_ns)
        return new, changes

    async def _judge_anew_if_expired(self, report: ReloadReport) -> None:
        """The old policy's own dates count, whatever has become of its files since."""
        if Trigger.EXPIRY not in report.triggers:
            return
        again = await asyncio.to_thread(renew, self._crew.current, self._number)
        try:
            await self._install(again)
        except (ServiceError, KernelError) as error:
            again.close()
            journal().error("open flows are not judged anew", why=str(error))

    def _watch(self, files: Iterable[Path], read_at_ns: int) -> None:
        self._watched = Watched(tuple(files), read_at_ns)

    async def _apply(self, new: Generation, report: ReloadReport) -> ReloadReport:
        old = self._crew.current
        if new.policy.digest == old.policy.digest and Trigger.EXPIRY not in report.triggers:
            new.close()
            # It judges alike; what it was read from, and where rules stand in it, may have changed.
            self._crew.current = replace(old, policy=new.policy)
            return report
        try:
            if objection := await self._objection(old, new, report):
                new.close()
                return replace(report, outcome=Outcome.REFUSED, error=objection)
            done, closed = await self._install(new)
        except (ServiceError, KernelError, StoreError) as error:
            new.close()
            return replace(report, outcome=Outcome.FAILED, error=str(error))
        self._applied.set()
        return replace(
            report,
            outcome=Outcome.APPLIED,
            digest=new.policy.digest,
            previous=old.policy.digest,
            installation=done,
            forwarded=closed,
        )

    async def _objection(self, old: Generation, new: Generation, report: ReloadReport) -> str:
        """Why the policy is not wanted, though it is good; a date that passed is not held back.

        Raises:
            StoreError: nobody can tell.
        """
        is_free = Trigger.FORCED in report.triggers or new.policy.digest == old.policy.digest
        return "" if self._gate is None or is_free else await self._gate.objection(old, new)

    async def _install(self, new: Generation) -> tuple[Installation, Revocation]:
        """In the order in which kernel and workers never allow what the new policy denies.

        What it denies is closed in the kernel before any worker commits, and what it allows is
        opened there after all have.

        Raises:
            ServiceError: a worker cannot take it; nothing has changed.
            KernelError: the kernel cannot; nothing has changed.
        """
        if self._firewall is None:
            return await self._crew.install(new), NOTHING_REVOKED
        done = await self._crew.install(new, partial(self._firewall.close_first, new))
        return done, await self._firewall.open_last()


def _digest(known: Known | None) -> str:
    return "" if known is None else known.digest
