"""``egressproxy up`` in the hub: started as a user would, its policy edited, its records read."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families

from egressproxy.kernel.firewall_options import Intercept
from egressproxy.policy.load import load_policy
from lab import sites
from lab.absence import absence
from lab.events import EventReader
from lab.namespaces import LabError
from lab.programs import server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

    from lab.network import Network

EXPLICIT_PORT: Final = 3128
ADMIN_PORT: Final = 9901
_ADMIN: Final = f"127.0.0.1:{ADMIN_PORT}"
_HTTP_OK: Final = 200
_PATIENCE_S: Final = 10.0
_POLL_S: Final = 0.005


@dataclass(slots=True)
class Gateway:
    """A gateway; ``records`` are its flow records, ``intercept`` how flows come to its proxy."""

    lab: Network
    folder: Path
    records: EventReader
    intercept: Intercept
    options: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None
    _running: ExitStack = field(default_factory=ExitStack)

    @property
    def policy_file(self) -> Path:
        """The policy, in a folder of its own: the gateway watches it."""
        return self.folder / "policy" / "policy.yaml"

    @property
    def service_log(self) -> Path:
        """What the service says of itself."""
        return self.folder / "service.log"

    @property
    def state(self) -> Path:
        """Where it remembers the hub's own sysctls."""
        return self.folder / "state.json"

    @property
    def explicit(self) -> str:
        """The explicit plane's address, as curl's ``-x`` takes it."""
        return f"http://{sites.HUB_INSIDE[0]}:{EXPLICIT_PORT}"

    @property
    def pid(self) -> int:
        """The supervisor's process id.

        Raises:
            LabError: it was not started.
        """
        if self.process is None:
            raise LabError("the gateway is not started")
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until it is ready; what it says is appended to ``service_log``.

        Raises:
            LabError: it did not get ready; with the end of what it said.
        """
        self.process = self._running.enter_context(
            server(
                self.lab.net.hub,
                *(sys.executable, "-m", "egressproxy", "up", "--policy", str(self.policy_file)),
                *("--management", "none", "--intercept", str(self.intercept)),
                *("--state", str(self.state), "--log", str(self.records.path)),
                *("--admin", _ADMIN, "--explicit", f":{EXPLICIT_PORT}"),
                *(arg for network in sites.SPOKE for arg in ("--explicit-clients", network)),
                *("--dns", sites.DNS_SERVER[0], *self.options),
                log=self.service_log,
                ready=lambda: is_ready(self.lab),
            )
        )

    def stop(self) -> None:
        """Stop it as a service manager does: the kernel's rules stay."""
        self._running.close()
        self.process = None

    def restart(self, intercept: Intercept) -> None:
        """Stop it and start it with another way of interception."""
        self.stop()
        self.intercept = intercept
        self.start()

    def down(self) -> str:
        """``egressproxy down``; what it says."""
        argv = (sys.executable, "-m", "egressproxy", "down", "--state", str(self.state))
        return self.lab.net.hub.run(*argv)

    def status(self, *options: str) -> str:
        """What ``egressproxy nft status`` says in the hub.

        Raises:
            LabError: not all is as it has to be; with what it says.
        """
        argv = (sys.executable, "-m", "egressproxy", "nft", "status", *options)
        place = ("--policy", str(self.policy_file), "--state", str(self.state))
        return self.lab.net.hub.run(*argv, *place, "--intercept", str(self.intercept))

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
        """Replace the policy and wait until it is in force everywhere; returns the seconds.

        Raises:
            LabError: it is not in force in time.
        """
        started = self.write_policy(text)
        wanted = load_policy(self.policy_file).digest
        while (now := self._enforced()) != wanted:
            if time.monotonic() - started > _PATIENCE_S:
                raise LabError(f"the gateway stays at policy {now[:12]}, {wanted[:12]} is wanted")
            time.sleep(_POLL_S)
        return time.monotonic() - started

    def _enforced(self) -> str:
        """The digest of the policy that workers and kernel enforce; empty during a reload."""
        page = json.loads(self.admin("/policy")[1])
        digest = str(page["digest"])
        return digest if page["last_reload"]["digest"] == digest else ""

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
    intercept: Intercept = Intercept.REDIRECT,
    options: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    """Run the gateway in the hub under a policy, until the block ends.

    ``files`` are texts that lie beside the policy.

    Raises:
        LabError: it did not get ready; with the end of what it said.
    """
    # A folder of its own: the gateway watches it, and the lab's other files are none of its.
    folder = lab.directory / f"gateway-{len(list(lab.directory.glob('gateway-*')))}"
    running = Gateway(lab, folder, EventReader(folder / "flows.jsonl"), intercept, options)
    running.policy_file.parent.mkdir(parents=True)
    running.policy_file.write_text(policy)
    for name, text in (files or {}).items():
        running.policy_file.with_name(name).write_text(text)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        running.down()


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
