"""What all data planes under test share: policy, redirect, core, and how memory is read."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.network import HUB_CPU, PORT
from egressproxy.policy.load import load_policy
from lab.programs import server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.network import Network
    from lab.namespaces import Namespace

LISTEN: Final = 15001
ALLOWED: Final = "myregistry.japaneast.data.azurecr.io"
DENIED: Final = "exfiltration.example.net"

_REDIRECT: Final = f"""
table ip bench {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    iifname "inside" tcp dport {PORT} redirect to :{LISTEN}
  }}
}}
"""

_POLICY: Final = """
version: 1
cloud: AzureCloud
parameters: {location: japaneast}
requirements:
  - aks/core
  - aks/azure-monitor
  - aks/azure-policy
  - acr: {registry: myregistry, regions: [japaneast], data_endpoint: dedicated}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A data plane that serves; ``pid`` is its first user process, none for the kernel alone."""

    name: str
    pid: int | None

    @property
    def pids(self) -> tuple[int, ...]:
        """All its user processes as of now; workers start after their listeners."""
        return () if self.pid is None else (self.pid, *_children(self.pid))

    def private_bytes(self) -> int:
        """Private memory of all its processes together."""
        return sum(_private_bytes(pid) for pid in self.pids)


@contextmanager
def redirected(
    network: Network, directory: Path, argv: Sequence[str], *, name: str = ""
) -> Iterator[int]:
    """Run a proxy on the hub's CPU behind the redirect until the block ends."""
    pinned = ["taskset", "-c", str(HUB_CPU), *argv]
    log = directory / f"{name or Path(argv[0]).name}.log"
    with server(network.hub, *pinned, log=log, ready=lambda: _listens(network.hub)) as process:
        network.hub.run("nft", "-f", "-", stdin=_REDIRECT)
        try:
            yield process.pid
        finally:
            network.hub.run("nft", "delete", "table", "ip", "bench")


def write_policy(directory: Path) -> Path:
    """The policy that all enforce, as egressproxy reads it."""
    path = directory / "policy.yaml"
    path.write_text(_POLICY)
    return path


def exact_names(directory: Path) -> list[str]:
    """The names of the policy that have no wildcard."""
    return [name for name in _patterns(directory) if "*" not in name]


def suffixes(directory: Path) -> list[str]:
    """What the policy's wildcards end with: ``.data.mcr.microsoft.com``."""
    return [name[1:] for name in _patterns(directory) if name.startswith("*")]


def _patterns(directory: Path) -> list[str]:
    policy = load_policy(write_policy(directory))
    return sorted({str(pattern) for rule in policy.rules for pattern in rule.patterns})


def _listens(hub: Namespace) -> bool:
    return bool(hub.run("ss", "-Hltn", f"sport = :{LISTEN}").strip())


def _children(pid: int) -> tuple[int, ...]:
    # Each thread lists the processes that it started.
    tasks = Path("/proc", str(pid), "task").iterdir()
    young = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return (*young, *(each for child in young for each in _children(child)))


def _private_bytes(pid: int) -> int:
    rows = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    private = [row.split() for row in rows if row.startswith("Private_")]
    return sum(int(row[1]) for row in private) * 1024
