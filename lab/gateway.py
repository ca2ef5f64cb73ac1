"""``egressproxy run`` in the hub: started as a user would, its policy edited, its records read."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families

from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from lab import firewall, sites
from lab.absence import absence
from lab.events import EventReader
from lab.namespaces import LabError
from lab.programs import server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

    from lab.network import Network

EXPLICIT_PORT: Final = 3128
ADMIN_PORT: Final = 9901
_ADMIN: Final = f"127.0.0.1:{ADMIN_PORT}"
_HTTP_OK: Final = 200
_PATIENCE_S: Final = 10.0
_POLL_S: Final = 0.005


@dataclass(slots=True)
class Gateway:
    """A running gateway; ``records`` are its flow records."""

    lab: Network
    policy_file: Path
    records: EventReader
    mode: firewall.Mode
    process: subprocess.Popen[bytes]
    service_log: Path

    @property
    def explicit(self) -> str:
        """The explicit plane's address, as curl's ``-x`` takes it."""
        return f"http://{sites.HUB_INSIDE[0]}:{EXPLICIT_PORT}"

    def route(self, mode: firewall.Mode) -> None:
        """Let application ports reach the plane this way from now on."""
        self.mode = mode
        loaded = load_policy(self.policy_file)
        ports = [port for _, port in compile_policy(loaded).application_ports()]
        text = firewall.script(mode, firewall.openings(loaded), ports)
        firewall.apply(self.lab.net.hub, text)

    def write_policy(self, text: str) -> float:
        """Replace the policy file as an editor does; returns the monotonic time just before.

        The product's watcher does the rest; ``apply_policy`` also waits for it.
        """
        draft = self.policy_file.with_suffix(".new")
        draft.write_text(text)
        started = time.monotonic()
        draft.replace(self.policy_file)
        return started

    def apply_policy(self, text: str) -> float:
        """Replace the policy and wait until it is in force in every worker; returns the seconds.

        Raises:
            LabError: it is not in force in time.
        """
        before = self.digest()
        started = self.write_policy(text)
        wanted = load_policy(self.policy_file).digest
        while (now := self.digest()) != wanted:
            if time.monotonic() - started > _PATIENCE_S:
                raise LabError(f"the gateway stays at policy {now[:12]}, {wanted[:12]} is wanted")
            time.sleep(_POLL_S)
        elapsed = time.monotonic() - started
        if before != wanted:
            self.route(self.mode)
        return elapsed

    def digest(self) -> str:
        """The digest of the policy in force."""
        return str(json.loads(self.admin("/policy")[1])["digest"])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 where there is none."""
        text = self.admin("/metrics")[1].decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def await_no_flows(self) -> None:
        """Wait until no flow is open.

        Raises:
            LabError: some are left although their clients have gone.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while left := self.metric("egressproxy_active_flows"):
            if time.monotonic() > deadline:
                raise LabError(f"{left:.0f} flows are left")
            time.sleep(_POLL_S)

    def workers(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        return tuple(worker["pid"] for worker in json.loads(self.admin("/readyz")[1])["workers"])

    def admin(self, path: str, *, method: str = "GET") -> tuple[int, bytes]:
        """Ask the admin listener."""
        return ask(self.lab, path, method=method)

    def record(self, *, skip: int = 0, timeout_s: float = 5.0, **fields: Any) -> dict[str, Any]:
        """The first flow record after ``skip`` with these fields.

        Raises:
            TimeoutError: none was written in time; with what was.
        """

        def matches(record: dict[str, Any]) -> bool:
            return all(record.get(name) == value for name, value in fields.items())

        try:
            return self.records.wait(matches, skip=skip, timeout_s=timeout_s)
        except TimeoutError as error:
            raise TimeoutError(absence(fields, self.records.read()[skip:])) from error


@contextmanager
def gateway(
    lab: Network,
    policy: str,
    *,
    mode: firewall.Mode = firewall.Mode.REDIRECT,
    options: Sequence[str] = (),
) -> Iterator[Gateway]:
    """Run the gateway in the hub under a policy, until the block ends.

    Raises:
        LabError: it did not get ready; with the end of what it said.
    """
    # A folder of its own: the gateway watches it, and the lab's other files are none of its.
    folder = lab.directory / f"gateway-{len(list(lab.directory.glob('gateway-*')))}"
    folder.mkdir()
    policy_file = folder / "policy" / "policy.yaml"
    policy_file.parent.mkdir()
    policy_file.write_text(policy)
    log = folder / "flows.jsonl"
    with server(
        lab.net.hub,
        sys.executable,
        "-m",
        "egressproxy",
        "run",
        *("--policy", str(policy_file), "--log", str(log), "--admin", _ADMIN),
        *("--redirect", f":{firewall.REDIRECT_PORT}", "--tproxy", f":{firewall.TPROXY_PORT}"),
        *("--explicit", f":{EXPLICIT_PORT}", "--dns", sites.DNS_SERVER[0]),
        *options,
        log=folder / "service.log",
        ready=lambda: is_ready(lab),
    ) as process:
        service_log = folder / "service.log"
        running = Gateway(lab, policy_file, EventReader(log), mode, process, service_log)
        running.route(mode)
        yield running


def is_ready(lab: Network) -> bool:
    """Whether the admin listener answers that it is ready."""
    try:
        return ask(lab, "/readyz")[0] == _HTTP_OK
    except (OSError, ValueError):
        return False


def ask(lab: Network, path: str, *, method: str = "GET") -> tuple[int, bytes]:
    """One HTTP exchange with the admin listener, from inside the hub."""
    host, _, port = _ADMIN.partition(":")
    with lab.net.hub.connect(host, int(port)) as connection:
        head = f"{method} {path} HTTP/1.1\r\nHost: {_ADMIN}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = bytearray()
        while data := connection.recv(1 << 16):
            answer += data
    status, _, rest = bytes(answer).partition(b"\r\n")
    return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]
