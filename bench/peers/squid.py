"""Squid: peek at the ClientHello, splice the same names to their original destination, no log."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.network import SERVER
from bench.peers.peer import LISTEN, Peer, asked_names, exact_names, redirected, suffixes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.network import Network


_CONFIGURATION: Final = """
https_port {listen} intercept ssl-bump tls-cert={directory}/squid.pem generate-host-certificates=off
http_port 127.0.0.1:{unused}
acl step1 at_step SslBump1
acl allowed ssl::server_name "{directory}/squid.names"
ssl_bump peek step1
ssl_bump splice allowed
ssl_bump terminate all
http_access allow all
hosts_file {directory}/squid.hosts
dns_nameservers 127.0.0.1
access_log none
cache_log /dev/null
cache deny all
cache_mem 0 MB
pid_filename none
coredump_dir none
workers 1
shutdown_lifetime 0 seconds
cache_effective_user proxy
"""


_UNUSED: Final = 10_000
"""Squid will not start without a plain port; that much above the other one."""


@contextmanager
def squid(
    network: Network, directory: Path, *, port: int = LISTEN, processes: int = 1
) -> Iterator[Peer]:
    """One worker a process; the certificate is asked for by the port and never shown."""
    directory.chmod(0o711)  # the hosts are read after privileges are dropped
    pem = directory / "squid.pem"
    if not pem.exists():
        key = ("-newkey", "rsa:2048", "-nodes", "-keyout", str(pem), "-out", str(pem))
        make = ("openssl", "req", "-x509", *key, "-days", "2", "-subj", "/CN=bench")
        subprocess.run(make, check=True, capture_output=True)
    write_names(directory)
    asked = asked_names(directory)
    (directory / "squid.hosts").write_text("".join(f"{SERVER} {name}\n" for name in asked))
    commands = {each: _command(directory, each) for each in range(port, port + processes)}
    with redirected("Squid", network, directory, commands) as peer:
        yield peer


def write_names(directory: Path) -> None:
    """The names of the folder's policy, in the file that Squid reads."""
    names = [*exact_names(directory), *suffixes(directory)]
    (directory / "squid.names").write_text("".join(f"{name}\n" for name in names))


def _command(directory: Path, port: int) -> list[str]:
    configuration = directory / f"squid-{port}.conf"
    configuration.write_text(
        _CONFIGURATION.format(directory=directory, listen=port, unused=port + _UNUSED)
    )
    # A name of its own: shared memory of another Squid, or of one that was killed, is in the way.
    return ["squid", "-N", "-n", f"bench{os.getpid()}p{port}", "-f", str(configuration)]
