"""CPUs of a measurement: named on a command line, packets steered to them, how busy they were."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.namespaces import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.network import Network
    from lab.namespaces import Namespace

STAT: Final = Path("/proc/stat")
_MASK_BITS: Final = 32


def parse_cores(text: str) -> tuple[int, ...]:
    """Read ``0-3,8`` as taskset(1) does.

    Raises:
        ValueError: not of this form, or a CPU twice.
    """
    cores: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        cores += range(int(first), int(last if dash else first) + 1)
    if not cores or len(set(cores)) != len(cores):
        raise ValueError(f"{text!r} names no CPU, or one twice")
    return tuple(cores)


def steer(network: Network, hub: Iterable[int], others: Iterable[int]) -> None:
    """Let the hub's packet work be done on some CPUs, that of client and server on others."""
    for link in ("inside", "outside"):
        _steer(network.hub, link, cpu_mask(hub))
    for namespace in (network.client, network.server):
        _steer(namespace, "eth0", cpu_mask(others))


def cpu_mask(cpus: Iterable[int]) -> str:
    """CPUs as ``rps_cpus`` takes them: hexadecimal words of 32, the highest first."""
    bits = sum(1 << cpu for cpu in cpus)
    words = [f"{bits & 0xFFFFFFFF:x}"]
    while bits := bits >> _MASK_BITS:
        words = [f"{bits & 0xFFFFFFFF:x}", *(word.zfill(8) for word in words)]
    return ",".join(words)


def _steer(namespace: Namespace, link: str, mask: str) -> None:
    # `ip netns exec` mounts the /sys of the namespace; nsenter alone would show the machine's.
    target = f"/sys/class/net/{link}/queues/rx-0/rps_cpus"
    run("ip", "netns", "exec", namespace.name, "sh", "-c", f"echo {mask} > {target}")


@dataclass(frozen=True, slots=True)
class Ticks:
    """What the kernel had counted of one CPU, in its ticks (proc(5), /proc/stat)."""

    idle: int
    total: int


def read_ticks(text: str) -> dict[int, Ticks]:
    """The CPUs of a ``/proc/stat``."""
    found: dict[int, Ticks] = {}
    for line in text.splitlines():
        name, *rest = line.split()
        if name.startswith("cpu") and name != "cpu":
            numbers = [int(number) for number in rest[:8]]  # guests are in user and nice already
            found[int(name[3:])] = Ticks(numbers[3] + numbers[4], sum(numbers))
    return found


def busy(before: dict[int, Ticks], after: dict[int, Ticks], cpus: Sequence[int]) -> float:
    """How much of their time these CPUs were not idle, 0 to 1."""
    idle = sum(after[cpu].idle - before[cpu].idle for cpu in cpus)
    total = sum(after[cpu].total - before[cpu].total for cpu in cpus)
    return 1 - idle / total if total else 0.0
