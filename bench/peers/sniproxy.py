"""sniproxy: a table of the same names as expressions, no log; they lead to the server."""

from __future__ import annotations

import re
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
pidfile {directory}/sniproxy.pid
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
def sniproxy(network: Network, directory: Path) -> Iterator[Peer]:
    """One process."""
    patterns = [f"^{re.escape(name)}$" for name in exact_names(directory)]
    patterns += [f"{re.escape(end)}$" for end in suffixes(directory)]
    lines = "\n".join(f"  {pattern} {SERVER}:{PORT}" for pattern in patterns)
    configuration = directory / "sniproxy.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, listen=LISTEN, names=lines))
    argv = ["sniproxy", "-f", "-n", "500000", "-c", str(configuration)]
    with redirected(network, directory, argv) as pid:
        yield Peer("sniproxy", pid)
