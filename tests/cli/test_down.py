"""``egressproxy down``: what it says, and what is left of us in a kernel: nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from egressproxy.cli import down
from egressproxy.errors import KernelError
from egressproxy.kernel.host_state import owned
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.routing import ensure_guard, ensure_tproxy
from egressproxy.kernel.sysctls import ensure_sysctls
from tests.kernel.one_nic import OneNic, one_nic
from tests.kernel.test_routing import TABLE, rules
from tests.kernel.test_sysctls import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.netns


@pytest.fixture
def net(tmp_path: Path) -> Iterator[OneNic]:
    with one_nic(tmp_path) as built, built.hub.entered():
        yield built


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "run" / "state.json"


def run(state: Path, *words: str) -> Result:
    arguments = ["--state", str(state), *words]
    return CliRunner().invoke(down.command, arguments, catch_exceptions=False)


def take_over(state: Path) -> None:
    ensure_guard()
    ensure_tproxy()
    Nft().apply(TABLE)
    ensure_sysctls(state)


def test_everything_goes_back_and_is_told(net: OneNic, state: Path) -> None:
    Nft().apply(TABLE)  # tracking begins, and with it its sysctls
    Nft().remove()
    before = (rules(net.hub), snapshot())
    take_over(state)
    result = run(state)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "sysctls are as they were before",
        "the table is deleted",
        "routing rules and routes are removed",
    ]
    assert (rules(net.hub), snapshot()) == before
    result = run(state)
    assert result.output == "there is nothing of ours on this machine\n"
    assert (rules(net.hub), snapshot()) == before


def test_while_it_is_up_nothing_is_taken(net: OneNic, state: Path) -> None:
    take_over(state)
    with owned(state), pytest.raises(KernelError, match="systemctl stop egressproxy"):
        run(state)
    assert Nft().table_state() is not None


def test_force_goes_on_and_says_what_is_left(net: OneNic, state: Path) -> None:
    take_over(state)
    state.write_text("damaged")
    with pytest.raises(KernelError, match="the routing guard stays"):
        run(state)
    result = run(state, "--force")
    assert result.exit_code == 2
    assert result.stdout == "the table is deleted\nrouting rules and routes are removed\n"
    left, is_open = result.stderr.splitlines()
    assert left.startswith("left as it is: ")
    assert "damaged" in left
    assert is_open.startswith("this machine forwards packets that nobody judges")
    assert net.forwards(4)


def test_force_on_a_machine_that_does_not_forward_cries_no_wolf(net: OneNic, state: Path) -> None:
    take_over(state)
    state.write_text("damaged")
    net.sysctl("net/ipv4/ip_forward", "0")
    net.sysctl("net/ipv6/conf/all/forwarding", "0")
    result = run(state, "--force")
    assert result.exit_code == 2
    assert "nobody judges" not in result.stderr
    assert not net.forwards(4)
