"""Network namespaces of one run: made, entered, and always removed, also those of dead runs.

Names are ``egl-<pid>-<serial><role>``, so that runs side by side, or labs of one run, never meet
and a later run knows what a killed one left behind (ip-netns(8), setns(2)).
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLONE_NEWNET: Final = 0x40000000
_PREFIX: Final = "egl"
_OURS = re.compile(rf"{_PREFIX}-(\d+)-\w+")
_SERIALS: Final = count()
_RUN_NETNS: Final = Path("/run/netns")

_NO_ROUTER_SOUGHT: Final = "net.ipv6.conf.default.router_solicitations=0"
"""All addresses are given; else each host asks for routers now and then (RFC 7559), which the
gateway's firewall drops and counts in the midst of a test that counts."""

# The resolver files of the namespace lie over those of the machine, for this one program: systemd's
# nss-resolve would ask a daemon outside the namespace. "$0" is the folder that holds them.
_WITH_OWN_ETC: Final = """
for file in resolv.conf hosts nsswitch.conf; do
  [ -e "$0/$file" ] && [ -e "/etc/$file" ] && mount --bind "$0/$file" "/etc/$file"
done
exec "$@"
"""


class LabError(Exception):
    """The lab could not be built or a program in it would not start; the text says which."""


def run(*argv: str, stdin: str = "", timeout_s: float = 30.0) -> str:
    """Run a system program to its end and return its stdout.

    Raises:
        LabError: it failed; with what it said.
    """
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace; ``etc`` is the folder of its resolver files."""

    role: str
    name: str
    etc: Path

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` inside; the process id is the program's own."""
        shell = ("sh", "-c", _WITH_OWN_ETC, str(self.etc))
        return ["nsenter", f"--net={self.path}", "unshare", "--mount", *shell, *argv]

    @property
    def path(self) -> Path:
        """The file that setns(2) takes."""
        return _RUN_NETNS / self.name

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a system program inside, without its own /etc."""
        return run("nsenter", f"--net={self.path}", *argv, stdin=stdin)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread inside; sockets made there stay there."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        inside = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(inside)
            try:
                yield
            finally:
                _setns(own)
        finally:
            os.close(inside)
            os.close(own)

    def connect(
        self, address: str, port: int, *, source: str = "", timeout_s: float = 10.0
    ) -> socket.socket:
        """A TCP connection from inside to an address (no name is resolved)."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.entered():
            connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(timeout_s)
            if source:
                connection.bind((source, 0))
            connection.connect((address, port))
        except OSError:
            connection.close()
            raise
        return connection


@contextmanager
def namespaces(roles: Sequence[str], etc: Path) -> Iterator[dict[str, Namespace]]:
    """Make a namespace a role, with loopback up; all are removed at the end, whatever happened."""
    remove_stale()
    serial = next(_SERIALS)
    made: dict[str, Namespace] = {}
    try:
        for role in roles:
            name = f"{_PREFIX}-{os.getpid()}-{serial}{role}"
            namespace = Namespace(role, name, etc / role)
            namespace.etc.mkdir(parents=True, exist_ok=True)
            run("ip", "netns", "add", namespace.name)
            made[role] = namespace
            namespace.run("sysctl", "-qw", _NO_ROUTER_SOUGHT)
            namespace.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        for namespace in made.values():
            _remove(namespace.name)


def remove_stale() -> list[str]:
    """Remove the namespaces of runs that are no more; returns their names."""
    if not _RUN_NETNS.is_dir():
        return []
    names = [entry.name for entry in _RUN_NETNS.iterdir()]
    stale = [name for name in names if (found := _OURS.fullmatch(name)) and _is_dead(found[1])]
    for name in stale:
        _remove(name)
    return stale


def _is_dead(pid: str) -> bool:
    return not Path("/proc", pid).exists()


def _remove(name: str) -> None:
    """End what still runs inside (only this lab starts anything there) and delete it."""
    for pid in run("ip", "netns", "pids", name).split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    run("ip", "netns", "delete", name)


def _setns(descriptor: int) -> None:
    """setns(2); ``os.setns`` is there from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
