"""The firewall's steps without a kernel: what fails is said, kept in mind, and tried again."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from egressproxy.errors import KernelError
from egressproxy.kernel.firewall_options import FirewallOptions
from egressproxy.kernel.nflog import Tally
from egressproxy.names import DnsName
from egressproxy.observe.counters import Counters
from egressproxy.policy.networks import parse_network
from egressproxy.service import firewall as module
from egressproxy.service.firewall import Firewall
from egressproxy.service.firewall_configuration import FirewallOrder
from egressproxy.service.forwarded import Judge, Revocation
from egressproxy.service.generation import load_generation
from egressproxy.service.journal import configure_journal
from egressproxy.service.name_sets import NameSets
from egressproxy.service.options import LogOptions, RunOptions
from egressproxy.service.set_plans import WantedName

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from pathlib import Path

    from egressproxy.kernel.kernel_policy import KernelPolicy
    from egressproxy.kernel.nft_apply import SetChange
    from egressproxy.service.generation import Generation

pytestmark = pytest.mark.anyio

OLD = """\
version: 1
cloud: AzureCloud
rules:
  - {name: one, to: [192.0.2.0/24], ports: ["tcp:9"]}
"""
NEW = OLD + '  - {name: two, to: [192.0.2.9], ports: ["udp:9"]}\n'


class Kernel:
    """Stands in for the kernel's rules, its log and its word on changes."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.failing: set[str] = set()
        self.amiss: tuple[str, ...] = ()
        self.revocation: Revocation | None = Revocation(revoked=2)
        self.nft = self
        self.tally = Tally()
        self.ours, self.theirs = socket.socketpair()
        self.policy: KernelPolicy | None = None

    def rules(self, _: FirewallOptions, __: Path, policy: KernelPolicy) -> Kernel:
        self.policy = policy
        return self

    def _do(self, step: str) -> None:
        self.steps.append(step)
        if step in self.failing:
            raise KernelError(f"{step} failed")

    def put_up(self) -> None:
        self._do("put up")

    def close_first(self, _: KernelPolicy) -> bool:
        self._do("close first")
        return True

    def open_last(self, policy: KernelPolicy) -> None:
        self.policy = policy
        self._do("open last")

    def problems(self, *, elements: bool) -> tuple[str, ...]:
        assert isinstance(elements, bool)
        if "look" in self.failing:
            raise KernelError("look failed")
        return self.amiss

    def put_back(self) -> bool:
        self._do("put back")
        self.amiss = ()
        return True

    def judged(self) -> dict[str, int]:
        return {"proxied": 1}

    def change_elements(self, changes: Iterable[SetChange]) -> None:
        assert not list(changes), "there are no names"

    async def revoke(self, _: Judge, __: object) -> Revocation:
        self._do("revoke")
        assert self.revocation is not None
        return self.revocation

    # its log, and its word on changes

    def fileno(self) -> int:
        return self.ours.fileno()

    def descriptors(self) -> tuple[int, ...]:
        return (self.theirs.fileno(),)

    def read(self, *_: int) -> Any:
        return []

    def close(self) -> None:
        self.steps.append("closed")

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.theirs.close()


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_journal(stream)
    yield stream
    structlog.reset_defaults()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, said: io.StringIO) -> Iterator[Kernel]:
    made = Kernel()
    monkeypatch.setattr(module, "KernelRules", made.rules)
    monkeypatch.setattr(module, "Nflog", lambda _: made)
    monkeypatch.setattr(module, "Changes", lambda: made)
    monkeypatch.setattr(module, "revoke", made.revoke)
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    yield made
    made.ours.close()
    made.theirs.close()


class At:
    """A firewall that is up, of the generation ``now``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now: Generation = self.load(OLD)
        self.counters = Counters.create(1)

    def load(self, text: str) -> Generation:
        path = self.folder / "policy.yaml"
        path.write_text(text)
        return load_generation(path, 1, allow_outside=False)

    def firewall(self) -> Firewall:
        run = RunOptions(
            policy=self.folder / "policy.yaml",
            listeners=(),
            workers=1,
            log=LogOptions(path=self.folder / "flows"),
        )
        order = FirewallOrder(FirewallOptions(redirect_port=15001), self.folder / "state.json")
        return Firewall(order, run, self.counters.supervisor(), lambda: self.now)


@asynccontextmanager
async def up(folder: Path) -> AsyncIterator[tuple[At, Firewall]]:
    at = At(folder)
    async with at.firewall() as firewall:
        yield at, firewall
    at.now.close()
    at.counters.close()


async def until(claim: Any) -> None:
    async with asyncio.timeout(10):
        while not claim():  # noqa: ASYNC110 - a claim knows no event
            await asyncio.sleep(0.005)


async def test_up_and_left_in_place(kernel: Kernel, tmp_path: Path, said: io.StringIO) -> None:
    async with up(tmp_path) as (at, firewall):
        assert kernel.steps == ["put up", "revoke"]
        assert firewall.is_up
        assert firewall.digest == at.now.policy.digest
        assert firewall.judged() == {"proxied": 1}
    assert set(kernel.steps[2:]) == {"closed"}
    assert "the kernel's rules stay in place" in said.getvalue()


async def test_what_fails_at_the_start_is_raised_and_all_is_closed(
    kernel: Kernel, tmp_path: Path
) -> None:
    kernel.failing.add("put up")
    at = At(tmp_path)
    with pytest.raises(KernelError, match="put up failed"):
        async with at.firewall():
            pytest.fail("it is not up")
    assert kernel.steps[-1] == "closed"
    assert not any(thread.name == "record-log" for thread in threading.enumerate())


async def test_a_reload_in_two_steps(kernel: Kernel, tmp_path: Path) -> None:
    async with up(tmp_path) as (at, firewall):
        new = at.load(NEW)
        await firewall.close_first(new)
        assert kernel.steps[-1] == "close first"
        old, at.now = at.now, new
        assert await firewall.open_last() == Revocation(revoked=2)
        assert kernel.steps[-2:] == ["open last", "revoke"]
        assert firewall.digest == new.policy.digest
        old.close()


async def test_what_the_kernel_refuses_beforehand_is_raised(kernel: Kernel, tmp_path: Path) -> None:
    async with up(tmp_path) as (at, firewall):
        kernel.failing.add("close first")
        new = at.load(NEW)
        with pytest.raises(KernelError, match="close first failed"):
            await firewall.close_first(new)
        assert firewall.is_up
        new.close()


@pytest.mark.parametrize("is_back", [True, False], ids=["at once", "later"])
async def test_what_cannot_be_closed_brings_the_old_policy_back(
    is_back: bool, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tighten(*_: object) -> None:
        if not is_back:
            kernel.failing.add("open last")
        raise KernelError("addresses of a name cannot be closed")

    async with up(tmp_path) as (at, firewall):
        monkeypatch.setattr(NameSets, "tighten", tighten)
        new = at.load(NEW)
        with pytest.raises(KernelError, match="cannot be closed"):
            await firewall.close_first(new)
        assert kernel.steps[-2:] == ["close first", "open last"]
        assert firewall.digest == at.now.policy.digest
        assert firewall.problems == (() if is_back else ("open last failed",)), "keep tries again"
        new.close()


@pytest.mark.parametrize("step", ["open last", "revoke"])
async def test_what_fails_after_the_commit_is_tried_again(
    step: str, kernel: Kernel, tmp_path: Path, said: io.StringIO
) -> None:
    async with up(tmp_path) as (at, firewall):
        await firewall.close_first(at.now)
        kernel.failing.add(step)
        assert await firewall.open_last() == Revocation()
        assert firewall.is_up is (step == "revoke")
        kernel.amiss = ("the table was changed",) if step == "open last" else ()
        kernel.failing.clear()
        keeping = asyncio.create_task(firewall.keep())  # noqa: TID251 - ended below
        try:
            revoked = 3 if step == "revoke" else 2  # the first at the start
            await until(lambda: firewall.is_up and kernel.steps.count("revoke") == revoked)
            count = len(kernel.steps)
            await asyncio.sleep(0.05)
            assert kernel.steps[count:] == [], "once"
        finally:
            keeping.cancel()
        assert f"{step} failed" in said.getvalue()


async def test_what_cannot_be_looked_at_is_not_up_and_told_once(
    kernel: Kernel, tmp_path: Path, said: io.StringIO
) -> None:
    async with up(tmp_path) as (_, firewall):
        kernel.failing.add("look")
        keeping = asyncio.create_task(firewall.keep())  # noqa: TID251 - ended below
        try:
            await until(lambda: not firewall.is_up)
            assert firewall.problems == ("look failed",)
            await asyncio.sleep(0.05)
            assert said.getvalue().count("look failed") == 1
            kernel.failing.clear()
            await until(lambda: firewall.is_up)
        finally:
            keeping.cancel()


async def test_between_two_policies_an_address_needs_both(kernel: Kernel) -> None:
    ours, more = (parse_network(text) for text in ("10.50.0.0/24", "10.51.0.0/24"))
    a, b, c = (DnsName(f"{letter}.test") for letter in "abc")
    old = (WantedName(a, frozenset({(ours,)})), WantedName(b))
    new = (WantedName(a, frozenset({(ours, more)})), WantedName(c))
    assert module.both_wanted(old, new) == (
        WantedName(a, frozenset({(ours,), (ours, more)})),
        WantedName(b),
        WantedName(c),
    )
