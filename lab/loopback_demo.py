"""The demo without root and without user namespaces: the explicit plane on loopback, ``curl -x``.

The address guard never dials this machine itself, so what is allowed here ends at the guard; what
is refused, and why, is the same as anywhere.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab import flow_table, policies, reviewed
from lab.absence import absence
from lab.events import EventReader
from lab.play import sentence
from lab.programs import how_to_install, missing
from lab.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

_READY_TIMEOUT_S: Final = 15.0
_STOP_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05
_POLICY: Final = policies.policy(
    policies.CORE,
    rules="  - {name: no-gists, action: deny, to: [gist.github.com], ports: [https, http]}\n",
)
_PROBES: Final = (
    ("https://example.com/", "deny", "default_deny"),
    ("http://example.com/", "deny", "default_deny"),
    ("https://gist.github.com/", "deny", "rule"),
    ("https://md-1.blob.storage.azure.net/", "deny", "default_deny"),
    ("https://mcr.microsoft.com/", "deny", "forbidden_address"),
)
"""URL, and what the gateway must record of it. The last is allowed by name; ``--resolve`` pins it
to loopback, where the guard stops it."""
_GUARDED: Final = """\
      allowed by the policy; the address guard stops it, because the lab's servers live on
      loopback"""


def main(stage: Stage) -> int:
    """Run it; returns the exit code."""
    if missing("curl"):
        stage.say(f"Missing: curl. Install with: {how_to_install(['curl'])}")
        return 2
    stage.say(
        "Not root, and user namespaces are not allowed here: this is the explicit plane on"
        " loopback.\nRun it as root to see the whole hub-and-spoke network."
    )
    with tempfile.TemporaryDirectory(prefix="egressproxy-lab-") as directory:
        folder = Path(directory)
        with _gateway(folder) as port:
            records = EventReader(folder / "flows.jsonl")
            for url, action, reason in _PROBES:
                _probe(stage, records, port, url, action, reason)
            stage.table("Deny log", flow_table.COLUMNS, flow_table.rows(records.read()))
            reviewed.show(stage, folder / "flows.jsonl", folder / "policy.yaml")
    return stage.curtain()


def _probe(
    stage: Stage, records: EventReader, port: int, url: str, action: str, reason: str
) -> None:
    argv = ("curl", "-sS", "--max-time", "10", "-x", f"http://127.0.0.1:{port}", url)
    mark = records.mark()
    stage.command(argv)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    stage.said(done.stdout + done.stderr)
    try:
        record = records.wait(
            lambda each: bool(each["action"] == action and each["reason"] == reason), skip=mark
        )
    except TimeoutError:
        seen = absence({"action": action, "reason": reason}, records.read()[mark:])
        stage.check(False, f"{action} ({reason}) of {url}", seen)
        return
    stage.check(True, sentence(record))
    if reason == "forbidden_address":
        stage.say(_GUARDED)


@contextmanager
def _gateway(folder: Path) -> Iterator[int]:
    policy = folder / "policy.yaml"
    policy.write_text(_POLICY)
    port = _free_port()
    argv = (
        *(sys.executable, "-m", "egressproxy", "run", "--policy", str(policy)),
        *("--explicit", f"127.0.0.1:{port}", "--log", str(folder / "flows.jsonl")),
        *("--resolve", "mcr.microsoft.com=127.0.0.1", "--workers", "1", "--admin", "none"),
    )
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _await_listener(process, port)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _await_listener(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(_POLL_S)
        else:
            return


if __name__ == "__main__":
    sys.exit(main(Stage()))
