"""What all data planes under test share: policy, redirect, core, and how memory is read."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from bench.network import HUB_CPU, PORT
from egressproxy.policy.load import load_policy
from lab.programs import server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from bench.network import Network
    from lab.namespaces import Namespace

LISTEN: Final = 15001
ALLOWED: Final = "myregistry.japaneast.data.azurecr.io"
DENIED: Final = "exfiltration.example.net"

NO_REDIRECT: Final = """
table ip bench {}
delete table ip bench
"""
_REDIRECT: Final = f"""{NO_REDIRECT}
table ip bench {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    iifname "inside" tcp dport {PORT} redirect to :%s
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
    """A data plane that runs, in the path of the spoke's traffic or beside it.

    ``roots`` are its first user processes, none for the kernel alone; ``enter`` and ``leave`` are
    what nft(8) reads in the hub to put it into the path and to take it out again.
    """

    name: str
    hub: Namespace
    roots: tuple[int, ...] = ()
    enter: str = ""
    leave: str = ""

    @property
    def pids(self) -> tuple[int, ...]:
        """All its user processes as of now; workers start after their listeners."""
        return tuple(pid for root in self.roots for pid in (root, *_children(root)))

    @contextmanager
    def in_path(self) -> Iterator[None]:
        """Lead the spoke's connections through it until the block ends; flows known so far go."""
        self.hub.run("nft", "-f", "-", stdin=self.enter)
        # A half-closed flow of before would lead a new one with its port to whom it was led to.
        self.hub.run("conntrack", "--flush")
        try:
            yield
        finally:
            self.hub.run("nft", "-f", "-", stdin=self.leave)

    def private_bytes(self) -> int:
        """Private memory of all its processes together."""
        return sum(_private_bytes(pid) for pid in self.pids)


class Start(Protocol):
    """Runs a data plane in the path until the block ends, its files in a folder.

    Several run side by side, each in a folder of its own and from a ``port`` of its own on, and
    enter the path in turn; ``processes`` share the connections.
    """

    def __call__(
        self, network: Network, directory: Path, /, *, port: int = LISTEN, processes: int = 1
    ) -> AbstractContextManager[Peer]:
        """Yields it once it listens."""


@contextmanager
def redirected(
    name: str,
    network: Network,
    directory: Path,
    commands: Mapping[int, Sequence[str]],
) -> Iterator[Peer]:
    """Run proxies on the hub's CPU, in the path; connections are dealt out to them in turn.

    Args:
        name: what the tables call the data plane.
        network: where it runs.
        directory: of its log.
        commands: by the port that each listens on.
    """
    with ExitStack() as stack:
        running = [
            stack.enter_context(_listening(network.hub, directory / f"{name}.log", argv, port))
            for port, argv in commands.items()
        ]
        roots = tuple(process.pid for process in running)
        peer = Peer(name, network.hub, roots, _REDIRECT % _dealt(tuple(commands)), NO_REDIRECT)
        with peer.in_path():
            yield peer


def _listening(
    hub: Namespace, log: Path, argv: Sequence[str], port: int
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    pinned = ("taskset", "-c", str(HUB_CPU), *argv)
    return server(hub, *pinned, log=log, ready=lambda: _listens(hub, port))


def _dealt(ports: tuple[int, ...]) -> str:
    """The destination port of a redirect: one, or one after the other."""
    if len(ports) == 1:
        return str(ports[0])
    turns = ", ".join(f"{turn} : {port}" for turn, port in enumerate(ports))
    return f"numgen inc mod {len(ports)} map {{ {turns} }}"


def write_policy(directory: Path) -> Path:
    """The policy of this folder, which all that start in it enforce; ours if there is none."""
    path = directory / "policy.yaml"
    if not path.exists():
        path.write_text(_POLICY)
    return path


def exact_names(directory: Path) -> list[str]:
    """The names of the policy that have no wildcard."""
    return [name for name in _patterns(directory) if "*" not in name]


def suffixes(directory: Path) -> list[str]:
    """What the policy's wildcards end with: ``.data.mcr.microsoft.com``."""
    return [name[1:] for name in _patterns(directory) if name.startswith("*")]


def asked_names(directory: Path) -> list[str]:
    """The names that the load asks for, all at the server: of a file of this folder, or one."""
    path = directory / "asked.txt"
    return path.read_text().split() if path.exists() else [ALLOWED]


def _patterns(directory: Path) -> list[str]:
    policy = load_policy(write_policy(directory))
    written = {str(pattern) for rule in policy.rules for pattern in rule.patterns}
    listed = {name for rule in policy.rules for names in rule.lists for name in names.entries}
    return sorted(written | listed)


def _listens(hub: Namespace, port: int) -> bool:
    return bool(hub.run("ss", "-Hltn", f"sport = :{port}").strip())


def _children(pid: int) -> tuple[int, ...]:
    # Each thread lists the processes that it started.
    tasks = Path("/proc", str(pid), "task").iterdir()
    young = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return (*young, *(each for child in young for each in _children(child)))


def _private_bytes(pid: int) -> int:
    rows = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    private = [row.split() for row in rows if row.startswith("Private_")]
    return sum(int(row[1]) for row in private) * 1024
