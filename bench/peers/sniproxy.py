"""sniproxy: a table of the same names as expressions, no log; they lead to the server."""

from __future__ import annotations

import re
import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.network import PORT, SERVER
from bench.peers.peer import LISTEN, Peer, exact_names, redirected, suffixes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.network import Network


_CONFIGURATION: Final = """
user root
pidfile {directory}/sniproxy-{listen}.pid
error_log {{
  filename /dev/null
}}
listener 0.0.0.0:{listen} {{
  protocol tls
  table allowed
}}
table allowed {{
{names}
}}
"""


@contextmanager
def sniproxy(
    network: Network, directory: Path, *, port: int = LISTEN, processes: int = 1
) -> Iterator[Peer]:
    """A process each: it has no workers."""
    commands = {each: sniproxy_command(directory, each) for each in range(port, port + processes)}
    with redirected("sniproxy", network, directory, commands) as peer:
        yield peer


def sniproxy_command(directory: Path, port: int) -> list[str]:
    """What starts it, with its file written anew from the policy of the folder."""
    patterns = [f"^{re.escape(name)}$" for name in exact_names(directory)]
    patterns += [f"{re.escape(end)}$" for end in suffixes(directory)]
    lines = "\n".join(f"  {pattern} {SERVER}:{PORT}" for pattern in patterns)
    configuration = directory / f"sniproxy-{port}.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, listen=port, names=lines))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return ["sniproxy", "-f", "-n", str(limit), "-c", str(configuration)]
