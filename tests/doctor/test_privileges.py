from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.doctor.plan import Plan
from egressproxy.doctor.privileges import check_files, check_privileges
from egressproxy.planes.context import ListenerKind
from egressproxy.service.options import Endpoint, Listener
from egressproxy.settings import Settings
from tests.doctor.machines import levels, machine, sysctls

if TYPE_CHECKING:
    from pathlib import Path

NET_ADMIN, BIND, RESOURCE = 1 << 12, 1 << 10, 1 << 24
LOW = Listener(ListenerKind.EXPLICIT, Endpoint("0.0.0.0", 80))
TPROXY = Listener(ListenerKind.TPROXY, Endpoint("::", 15002))


def status(bits: int) -> dict[str, str]:
    return {"proc/self/status": f"Name:\tx\nCapEff:\t{bits:016x}\nCapBnd:\tffff\n"}


@pytest.mark.parametrize(
    ("bits", "plan", "seen"),
    [
        (NET_ADMIN, Plan(), ["CAP_NET_ADMIN"]),
        (0, Plan(), ["no CAP_NET_ADMIN"]),
        (0, Plan(is_firewall=False), ["none needed"]),
        (0, Plan(is_firewall=False, listeners=(TPROXY,)), ["no CAP_NET_ADMIN"]),
        (0, Plan(is_firewall=False, listeners=(LOW,)), ["no CAP_NET_BIND_SERVICE"]),
        (BIND, Plan(is_firewall=False, listeners=(LOW,)), ["CAP_NET_BIND_SERVICE"]),
        (0, Plan(listeners=(LOW,)), ["no CAP_NET_ADMIN", "no CAP_NET_BIND_SERVICE"]),
    ],
)
def test_capabilities(bits: int, plan: Plan, seen: list[str], tmp_path: Path) -> None:
    found = list(check_privileges(machine(tmp_path, status(bits)), plan))
    assert [each.seen for each in found] == seen
    assert all((each.level == "fail") == each.seen.startswith("no ") for each in found)


def test_low_ports_that_everyone_may_have(tmp_path: Path) -> None:
    files = status(0) | sysctls(net__ipv4__ip_unprivileged_port_start=80)
    plan = Plan(is_firewall=False, listeners=(LOW,))
    assert levels(check_privileges(machine(tmp_path, files), plan)) == {"capabilities": "ok"}


def limits(soft: object, hard: object) -> str:
    return f"Limit   Soft  Hard  Units\nMax open files            {soft}   {hard}    files\n"


@pytest.mark.parametrize(
    ("text", "bits", "level"),
    [
        (limits(1024, 1_048_576), 0, "ok"),
        (limits(1024, 4096), 0, "warn"),
        (limits(1024, 4096), RESOURCE, "ok"),
        (limits("unlimited", "unlimited"), 0, "ok"),
        ("", 0, "warn"),
    ],
    ids=["can-be-raised", "cannot", "by-capability", "unlimited", "unknown"],
)
def test_open_files_to_be(text: str, bits: int, level: str, tmp_path: Path) -> None:
    files = {"proc/self/limits": text} | status(bits) | sysctls(fs__nr_open=1_048_576)
    assert levels(check_files(machine(tmp_path, files), Plan())) == {"open files": level}


def test_open_files_of_running_workers(tmp_path: Path) -> None:
    files = {
        "proc/77/cmdline": "python\0-m\0egressproxy.service.worker\x005\0",
        "proc/77/limits": limits(10, 20),
        **{f"proc/77/fd/{number}": "" for number in range(9)},
        "proc/sys/fs/file-nr": "90\t0\t100",
    }
    plan = Plan(settings=Settings(max_flows=1))
    assert levels(check_files(machine(tmp_path, files), plan)) == {
        "open files": "warn",
        "open files in use": "warn",
        "open files of the machine": "warn",
    }
