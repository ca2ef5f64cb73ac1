"""mitmproxy in transparent mode: the same names pass through undecrypted, others are cut."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.peers.peer import LISTEN, Peer, exact_names, redirected, suffixes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.network import Network

PROGRAM: Final = Path(__file__).resolve().parents[2] / ".venv-oracle" / "bin" / "mitmdump"

_ADDON: Final = """
from OpenSSL import SSL

EXACT = frozenset({exact!r})
SUFFIXES = {suffixes!r}

def tls_clienthello(data):
    name = data.client_hello.sni or ""
    data.ignore_connection = name in EXACT or name.endswith(SUFFIXES)

def tls_start_client(data):
    # Only what is not to pass comes here; without a certificate the handshake fails at once.
    data.ssl_conn = SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD))
    data.ssl_conn.set_accept_state()
"""


@contextmanager
def mitmproxy(
    network: Network, directory: Path, *, port: int = LISTEN, processes: int = 1
) -> Iterator[Peer]:
    """The oracle's environment has it."""
    addon = directory / "mitm_policy.py"
    addon.write_text(
        _ADDON.format(exact=exact_names(directory), suffixes=tuple(suffixes(directory)))
    )
    argv = [str(PROGRAM), "--mode", "transparent", "-q", "-s", str(addon)]
    for setting in (f"confdir={directory / 'mitm'}", "connection_strategy=lazy", "flow_detail=0"):
        argv += ["--set", setting]
    ports = range(port, port + processes)
    commands = {each: [*argv, "--listen-port", str(each)] for each in ports}
    with redirected("mitmproxy", network, directory, commands) as peer:
        yield peer
