"""May we: capabilities, and how many files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from egressproxy.doctor.finding import fail, ok, warn
from egressproxy.planes.context import ListenerKind
from egressproxy.service.file_limit import BESIDE_FLOWS, PER_FLOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.machine import Machine
    from egressproxy.doctor.plan import Plan

_BIND_SERVICE, _NET_ADMIN, _SYS_RESOURCE = 10, 12, 24  # linux/capability.h
_PRIVILEGED: Final = 1024
_FULL: Final = 0.8
_EFFECTIVE: Final = re.compile(r"^CapEff:\s*([0-9a-f]{1,16})$", re.MULTILINE)
_OPEN_FILES: Final = re.compile(
    r"^Max open files\s+(\d+|unlimited)\s+(\d+|unlimited)", re.MULTILINE
)
_WORKER: Final = "egressproxy.service.worker"


def check_privileges(machine: Machine, plan: Plan) -> Iterator[Finding]:
    """Of the user that runs the doctor; run it as the service's own (``sudo -u``) to know his."""
    found = _EFFECTIVE.search(machine.text("proc/self/status"))
    has = int(found[1], 16) if found else 0
    wanted = {}
    if plan.is_firewall:
        wanted[_NET_ADMIN] = (
            "CAP_NET_ADMIN",
            "nftables, routes, sysctls, TPROXY and marks need it",
        )
    low = [
        listener.endpoint
        for listener in plan.listeners
        if 0 < listener.endpoint.port < _unprivileged(machine)
    ]
    if low:
        wanted[_BIND_SERVICE] = ("CAP_NET_BIND_SERVICE", f"{low[0]} is a privileged port")
    if any(listener.kind is ListenerKind.TPROXY for listener in plan.listeners):
        wanted[_NET_ADMIN] = ("CAP_NET_ADMIN", "a tproxy listener needs it")
    lacking = [wanted[bit] for bit in wanted if not has >> bit & 1]
    for name, why in lacking:
        yield fail(
            "capabilities",
            f"no {name}",
            why,
            f"run as root, or AmbientCapabilities={name} in the unit (deploy/systemd has it)",
        )
    if not lacking:
        names = ", ".join(name for name, _ in wanted.values())
        yield ok("capabilities", names or "none needed")


def check_files(machine: Machine, plan: Plan) -> Iterator[Finding]:
    """The limit of running workers, else ours; and the whole machine's."""
    wanted = PER_FLOW * plan.settings.max_flows + BESIDE_FLOWS
    workers = [each.pid for each in machine.processes() if _WORKER in each.command]
    if workers:
        soft, _ = _limits(machine, f"proc/{workers[0]}/limits")
        yield _enough(soft, wanted, f"{soft:,} for each worker, max_flows wants {wanted:,}")
        fullest = max(len(machine.entries(f"proc/{pid}/fd")) for pid in workers)
        if soft and fullest > _FULL * soft:
            yield warn(
                "open files in use",
                f"{fullest:,} of {soft:,} in the fullest worker",
                "at the limit a worker accepts no more until files are free",
                f"LimitNOFILE={4 * soft} in the unit",
            )
    else:
        _, hard = _limits(machine, "proc/self/limits")
        status = _EFFECTIVE.search(machine.text("proc/self/status"))
        if status and int(status[1], 16) >> _SYS_RESOURCE & 1:
            hard = max(hard, machine.number("proc/sys/fs/nr_open") or 0)
        yield _enough(hard, wanted, f"up to {hard:,}, max_flows wants {wanted:,}")
    yield from _whole_machine(machine)


def _enough(limit: int, wanted: int, seen: str) -> Finding:
    if limit >= wanted:
        return ok("open files", seen)
    return warn(
        "open files",
        seen,
        "a flow has two descriptors, and any worker may hold most flows",
        f"LimitNOFILE={wanted} in the unit, or ulimit -n {wanted}",
    )


def _whole_machine(machine: Machine) -> Iterator[Finding]:
    """/proc/sys/fs/file-nr: in use, unused, most (proc_sys_fs(5))."""
    numbers = machine.numbers("proc/sys/fs/file-nr")
    if len(numbers) == 3 and numbers[0] > _FULL * numbers[2]:
        used, _, most = numbers
        yield warn(
            "open files of the machine",
            f"{used:,} of {most:,}",
            "beyond it no process can open anything",
            f"sysctl -w fs.file-max={4 * most}",
        )


def _limits(machine: Machine, path: str) -> tuple[int, int]:
    found = _OPEN_FILES.search(machine.text(path))
    if not found:
        return 0, 0
    soft, hard = (1 << 62 if word == "unlimited" else int(word) for word in found.groups())
    return soft, hard


def _unprivileged(machine: Machine) -> int:
    start = machine.sysctl("net.ipv4.ip_unprivileged_port_start")
    return _PRIVILEGED if start is None else start
