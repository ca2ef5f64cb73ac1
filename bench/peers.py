"""The data planes under test, each as its own engineers would tune it, all with one policy."""

from __future__ import annotations

import resource
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.network import HUB_CPU, PORT, SERVER
from egressproxy.policy.load import load_policy
from lab.programs import server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.network import Network
    from lab.namespaces import Namespace

LISTEN: Final = 15001
NATIVE: Final = Path(__file__).resolve().parent.with_name(".native")
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

_HAPROXY: Final = """
global
  nbthread 1
  maxconn {maxconn}
  tune.pipesize 1048576
defaults
  mode tcp
  timeout connect 5s
  timeout client 2h
  timeout server 2h
  option splice-auto
  option clitcpka
  option srvtcpka
frontend egress
  bind :{listen} defer-accept
  tcp-request inspect-delay 5s
  acl allowed req.ssl_sni -i -f {exact}
  acl allowed req.ssl_sni -i -m end -f {suffixes}
  tcp-request content accept if {{ req.ssl_hello_type 1 }} allowed
  tcp-request content reject
  default_backend original
backend original
  server original 0.0.0.0:0
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
def forwarding(_network: Network, _directory: Path) -> Iterator[Peer]:
    """No proxy: the hub's kernel forwards."""
    yield Peer("no proxy", None)


@contextmanager
def haproxy(network: Network, directory: Path) -> Iterator[Peer]:
    """HAProxy: SNI ACLs over the same names, splice, 1 MB pipes, deferred accept, no log."""
    exact, suffixes = directory / "exact.lst", directory / "suffixes.lst"
    names = _policy_names(directory)
    exact.write_text("".join(f"{name}\n" for name in names if "*" not in name))
    suffixes.write_text("".join(f"{name[1:]}\n" for name in names if name.startswith("*")))
    configuration = directory / "haproxy.cfg"
    configuration.write_text(
        _HAPROXY.format(
            listen=LISTEN,
            exact=exact,
            suffixes=suffixes,
            maxconn=resource.getrlimit(resource.RLIMIT_NOFILE)[1] * 3 // 8,
        )
    )
    with _redirected(network, directory, ["haproxy", "-db", "-f", str(configuration)]) as pid:
        yield Peer("HAProxy", pid)


@contextmanager
def egressproxy(network: Network, directory: Path) -> Iterator[Peer]:
    """Egressproxy as ``pip install`` leaves it: compiled; records of every flow, metrics, limits.

    Raises:
        FileNotFoundError: ``make native`` has not been run.
    """
    if not (NATIVE / "ready").exists():
        raise FileNotFoundError(NATIVE, "make native")
    compiled = ("env", "PYTHONSAFEPATH=1", f"PYTHONPATH={NATIVE}")
    with _egressproxy("egressproxy", compiled, network, directory) as peer:
        yield peer


@contextmanager
def interpreted(network: Network, directory: Path) -> Iterator[Peer]:
    """The same without a C compiler at install time."""
    with _egressproxy("interpreted", (), network, directory) as peer:
        yield peer


@contextmanager
def _egressproxy(
    name: str, environment: Sequence[str], network: Network, directory: Path
) -> Iterator[Peer]:
    _policy_names(directory)
    argv = [*environment, sys.executable, "-m", "egressproxy", "run"]
    argv += ["--policy", str(directory / "policy.yaml")]
    argv += [
        "--redirect",
        f"0.0.0.0:{LISTEN}",
        "--workers",
        "1",
        "--resolve",
        f"{ALLOWED}={SERVER}",
    ]
    # Not beside the policy, whose folder is watched.
    (directory / "log").mkdir(exist_ok=True)
    argv += ["--log", str(directory / "log" / "flows.jsonl"), "--log-allows", "all"]
    argv += ["--max-flows", "100000", "--max-flows-per-source", "100000"]
    with _redirected(network, directory, argv) as pid:
        yield Peer(name, pid)


PEERS: Final = {
    "none": forwarding,
    "haproxy": haproxy,
    "egressproxy": egressproxy,
    "interpreted": interpreted,
}


@contextmanager
def _redirected(network: Network, directory: Path, argv: Sequence[str]) -> Iterator[int]:
    """Run a proxy on the hub's CPU behind the redirect until the block ends."""
    pinned = ["taskset", "-c", str(HUB_CPU), *argv]
    log = directory / f"{Path(argv[0]).name}.log"
    with server(network.hub, *pinned, log=log, ready=lambda: _listens(network.hub)) as process:
        network.hub.run("nft", "-f", "-", stdin=_REDIRECT)
        try:
            yield process.pid
        finally:
            network.hub.run("nft", "delete", "table", "ip", "bench")


def _listens(hub: Namespace) -> bool:
    return bool(hub.run("ss", "-Hltn", f"sport = :{LISTEN}").strip())


def _policy_names(directory: Path) -> list[str]:
    path = directory / "policy.yaml"
    path.write_text(_POLICY)
    policy = load_policy(path)
    return sorted({str(pattern) for rule in policy.rules for pattern in rule.patterns})


def _children(pid: int) -> tuple[int, ...]:
    # Each thread lists the processes that it started.
    tasks = Path("/proc", str(pid), "task").iterdir()
    return tuple(int(child) for task in tasks for child in (task / "children").read_text().split())


def _private_bytes(pid: int) -> int:
    rows = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    private = [row.split() for row in rows if row.startswith("Private_")]
    return sum(int(row[1]) for row in private) * 1024
