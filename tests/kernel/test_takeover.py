"""All of it together in a real kernel: taken over, looked at, taken back, whatever happens."""

from __future__ import annotations

import ctypes
import os
import struct
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.errors import KernelError
from egressproxy.kernel import takeover as module
from egressproxy.kernel.host_state import HostState, owned, read_state
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.routing import ensure_guard, ensure_tproxy
from egressproxy.kernel.sysctls import ensure_sysctls
from egressproxy.kernel.takeover import Removed, remember_table, take_back, takeover
from tests.kernel.one_nic import OneNic, one_nic
from tests.kernel.test_routing import TABLE, rules
from tests.kernel.test_sysctls import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def test_a_damaged_state_hides_nothing_else(net: OneNic, state: Path) -> None:
    for step in STEPS:
        step(state)
    state.write_text("damaged")
    found = takeover(Nft(), state)
    assert found.table is not None
    assert found.is_changed is None
    assert found.is_forwarding
    assert f"{state}: damaged" in found.forgotten


def test_where_nothing_is_remembered_the_guard_stays(
    net: OneNic, state: Path, tmp_path: Path
) -> None:
    """Another file than up had, or one that went with its container."""
    for step in STEPS:
        step(state)
    other = tmp_path / "other" / "state.json"
    with pytest.raises(KernelError, match=r"nothing is remembered.*guard stays") as caught:
        take_back(Nft(), other)
    assert caught.value.code == "not_remembered"
    found = takeover(Nft(), state)
    assert found.table is not None
    assert found.routing.guard
    assert take_back(Nft(), state).routing
    assert take_back(Nft(), other) == Removed()


def test_where_forwarding_was_stopped_by_hand_nothing_needs_to_be_remembered(
    net: OneNic, state: Path
) -> None:
    for step in STEPS:
        step(state)
    state.unlink()
    net.sysctl("net/ipv4/ip_forward", "0")
    with pytest.raises(KernelError, match="nothing is remembered"):
        take_back(Nft(), state)
    net.sysctl("net/ipv6/conf/all/forwarding", "0")
    assert take_back(Nft(), state).routing
    assert not net.forwards(4)


def test_a_machine_that_forwarded_before_goes_back_after_a_crash(
    net: OneNic, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was remembered is not forgotten before all has gone."""
    net.sysctl("net/ipv4/ip_forward", "1")
    for step in STEPS:
        step(state)
    with monkeypatch.context() as patch:
        patch.setattr(module, "remove_routing", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            take_back(Nft(), state)
    assert take_back(Nft(), state).routing
    assert net.sysctl("net/ipv4/ip_forward") == "1"
    assert not state.exists()


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


# The service is no root: deploy/systemd gives it CAP_NET_ADMIN alone.

NOBODY: Final = 65534
_CAP_NET_ADMIN: Final = 12
_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 8, 47, 2
_CAPABILITY_VERSION: Final = 0x20080522


def as_service(act: Callable[[], object]) -> None:
    """Do it in a child that is nobody and has CAP_NET_ADMIN alone."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _become_nobody()
            act()
            code = 0
        except BaseException:  # noqa: BLE001 - a child of pytest must not go on as pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _become_nobody() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    assert libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    bit = 1 << _CAP_NET_ADMIN
    assert libc.capset(header, struct.pack("=6I", bit, bit, bit, 0, 0, 0)) == 0
    raise_ = (_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_NET_ADMIN, 0, 0)
    assert libc.prctl(*raise_) == 0


@pytest.fixture
def service_state() -> Iterator[Path]:
    """In a folder of the service's own that it can reach."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        os.chown(folder, NOBODY, NOBODY)
        yield Path(folder) / "state.json"


def test_the_service_needs_no_root_and_root_takes_back(net: OneNic, service_state: Path) -> None:
    before = (rules(net.hub), snapshot())

    def up() -> None:
        with owned(service_state):
            for step in STEPS:
                step(service_state)
            assert takeover(Nft(), service_state).is_changed is False

    as_service(up)
    found = takeover(Nft(), service_state)
    assert found.is_changed is False
    assert (found.routing.guard, found.routing.tproxy, found.sysctls) == (True, True, ())
    assert [net.forwards(version) for version in (4, 6)] == [True, True]
    with owned(service_state):
        take_back(Nft(), service_state)
    assert (rules(net.hub), snapshot()) == before


def test_what_root_did_by_hand_the_service_can_read(net: OneNic, service_state: Path) -> None:
    with owned(service_state):
        for step in STEPS:
            step(service_state)
    assert service_state.stat().st_uid == NOBODY

    def up_and_down() -> None:
        with owned(service_state):
            assert ensure_sysctls(service_state) == ()
            take_back(Nft(), service_state)

    as_service(up_and_down)
    assert takeover(Nft(), service_state).table is None
