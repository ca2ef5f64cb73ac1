"""``egressproxy run`` as a service manager starts it: with sockets, and a place to notify."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.service.running import DEADLINE_S, poll

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_EXEC: Final = """\
import os, sys
count, name = int(sys.argv[1]), sys.argv[2]
for place, fd in enumerate(int(word) for word in sys.argv[3].split(",") if word):
    os.dup2(fd, 3 + place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES=name)
os.execv(sys.executable, [sys.executable, "-m", "egressproxy", "run", *sys.argv[4:]])
"""
_WITH: Final = ("--admin", "none", "--workers", "2", "--log")


@dataclass(slots=True)
class Activated:
    """A started service; ``told`` is where its manager listens."""

    process: subprocess.Popen[bytes]
    told: socket.socket
    events: list[dict[str, Any]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)

    def read(self) -> None:
        """Collect its journal."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.raw.append(line.decode())
            if line.startswith(b"{"):
                self.events.append(json.loads(line))

    def said(self, event: str) -> int:
        """How often the journal has this event."""
        return sum(line["event"] == event for line in list(self.events))

    def wait_for(self, event: str, *, times: int = 1) -> None:
        """Until the journal has this event so often."""

        def is_said() -> bool:
            assert self.process.poll() is None, "".join(self.raw)
            return self.said(event) >= times

        poll(event, is_said)

    def next_sign(self) -> list[str]:
        """The next notification."""
        return self.told.recv(4096).decode().splitlines()

    def wait_for_sign(self, sign: str) -> list[str]:
        """The first notification that has this assignment."""
        while sign not in (found := self.next_sign()):
            pass
        return found

    def forget_signs(self) -> None:
        """Read what has been notified so far."""
        self.told.setblocking(False)
        try:
            while True:
                self.told.recv(4096)
        except BlockingIOError:
            self.told.settimeout(DEADLINE_S)

    def workers(self) -> list[int]:
        """The pids of its workers."""
        pid = self.process.pid
        return [int(w) for w in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self) -> int:
        """End it as a manager does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


@contextmanager
def activated(
    folder: Path,
    sockets: Sequence[socket.socket] = (),
    *options: str,
    names: str = "explicit",
    environment: dict[str, str] | None = None,
) -> Iterator[Activated]:
    """The service, just started, until the block ends."""
    policy = folder / "policy.yaml"
    policy.write_text("version: 1\ncloud: AzureCloud\nrules: []\n")
    address = folder / "notify"
    address.unlink(missing_ok=True)
    fds = [sock.fileno() for sock in sockets]
    arguments = (str(len(fds)), names, ",".join(map(str, fds)), "--policy", str(policy))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(address))
        told.settimeout(DEADLINE_S)
        process = subprocess.Popen(
            [sys.executable, "-c", _EXEC, *arguments, *_WITH, str(folder / "flows"), *options],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=fds,
            env={**os.environ, "NOTIFY_SOCKET": str(address), **(environment or {})},
        )
        service = Activated(process, told)
        reader = threading.Thread(target=service.read, name="journal")
        reader.start()
        try:
            yield service
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(DEADLINE_S)
            reader.join(DEADLINE_S)
            assert process.stderr
            process.stderr.close()
