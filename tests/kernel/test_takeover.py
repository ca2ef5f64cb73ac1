"""All of it together in a real kernel: taken over, looked at, taken back, whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.errors import KernelError
from egressproxy.kernel import takeover as module
from egressproxy.kernel.host_state import HostState, read_state
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.routing import ensure_guard, ensure_tproxy
from egressproxy.kernel.sysctls import ensure_sysctls
from egressproxy.kernel.takeover import Removed, remember_table, take_back, takeover
from tests.kernel.one_nic import OneNic, one_nic
from tests.kernel.test_routing import TABLE, rules
from tests.kernel.test_sysctls import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns


@pytest.fixture
def net(tmp_path: Path) -> Iterator[OneNic]:
    with one_nic(tmp_path) as built, built.hub.entered():
        built.hub.run("nft", "add table inet t; add chain inet t c; add rule inet t c ct state new")
        yield built


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "run" / "state.json"


STEPS: Final[tuple[Callable[[Path], object], ...]] = (
    lambda _: ensure_guard(),
    lambda _: ensure_tproxy(),
    lambda _: Nft().apply(TABLE),
    lambda state: remember_table(Nft().table_state(), state),
    ensure_sysctls,
)


def test_what_is_in_place_is_seen(net: OneNic, state: Path) -> None:
    before = takeover(Nft(), state)
    assert before.table is None
    assert before.is_changed is None
    assert not before.routing.guard
    assert before.sysctls
    for step in STEPS:
        step(state)
    found = takeover(Nft(), state)
    assert found.table is not None
    assert found.is_changed is False
    assert (found.routing.guard, found.routing.tproxy) == (True, True)
    assert not found.sysctls
    net.hub.run("nft", "add", "rule", "inet", "egressproxy", "prerouting", "accept")
    assert takeover(Nft(), state).is_changed


def test_what_is_remembered_of_the_table_leaves_the_sysctls(net: OneNic, state: Path) -> None:
    ensure_sysctls(state)
    known = read_state(state).sysctls
    Nft().apply(TABLE)
    table = Nft().table_state()
    remember_table(table, state)
    assert table is not None
    assert read_state(state) == HostState(sysctls=known, fingerprint=table.fingerprint)
    remember_table(None, state)
    assert read_state(state) == HostState(sysctls=known)


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
def test_all_goes_back_from_wherever_it_stopped(net: OneNic, state: Path, steps: int) -> None:
    """A crash between any two steps of going up, then twice down."""
    before = (rules(net.hub), snapshot(), net.hub.run("nft", "list", "ruleset"))
    for step in STEPS[:steps]:
        step(state)
    removed = take_back(Nft(), state)
    assert (rules(net.hub), snapshot(), net.hub.run("nft", "list", "ruleset")) == before
    assert bool(removed.sysctls) is (steps == 5)
    assert removed.table is (steps >= 3)
    assert removed.routing is (steps >= 1)
    assert take_back(Nft(), state) == Removed()
    assert (rules(net.hub), snapshot(), net.hub.run("nft", "list", "ruleset")) == before
    assert not state.exists()


@pytest.mark.parametrize("crash", ["restore_sysctls", "remove_routing"])
def test_a_crash_while_it_goes_back_can_be_finished(
    net: OneNic, state: Path, crash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (rules(net.hub), snapshot())
    for step in STEPS:
        step(state)
    act = getattr(module, crash)

    def crashing(*arguments: object) -> None:
        act(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, crash, crashing)
        with pytest.raises(KeyboardInterrupt):
            take_back(Nft(), state)
    take_back(Nft(), state)
    assert (rules(net.hub), snapshot()) == before


def test_where_sysctls_cannot_go_back_the_guard_stays(net: OneNic, state: Path) -> None:
    """Else a machine that still forwards would forward everything."""
    for step in STEPS:
        step(state)
    state.write_text("damaged")
    with pytest.raises(KernelError, match=r"damaged.*the routing guard stays") as caught:
        take_back(Nft(), state)
    assert "--force" in caught.value.hint
    assert net.forwards(4)
    net.hub.run("nft", "flush", "ruleset")
    assert not net.forwards(4)
    removed = take_back(Nft(), state, force=True)
    assert removed.routing
    assert "damaged" in removed.failures[0]
    assert "proto 101" not in rules(net.hub)


def test_where_nft_is_missing_the_guard_stays(net: OneNic, state: Path) -> None:
    for step in STEPS:
        step(state)
    with pytest.raises(KernelError, match="apt install nftables"):
        take_back(Nft("/nonexistent/nft"), state)
    assert takeover(Nft(), state).routing.guard
    removed = take_back(Nft("/nonexistent/nft"), state, force=True)
    assert len(removed.failures) == 1
    assert removed.routing
    assert not removed.table
