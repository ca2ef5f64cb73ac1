"""HAProxy: SNI ACLs over the same names, splice, 1 MB pipes, deferred accept, no log."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.peers.peer import LISTEN, Peer, exact_names, redirected, suffixes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.network import Network


_CONFIGURATION: Final = """
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


@contextmanager
def haproxy(
    network: Network, directory: Path, *, port: int = LISTEN, processes: int = 1
) -> Iterator[Peer]:
    """One thread a process."""
    commands = {each: _command(directory, each) for each in range(port, port + processes)}
    with redirected("HAProxy", network, directory, commands) as peer:
        yield peer


def _command(directory: Path, port: int) -> list[str]:
    exact, ends = directory / "exact.lst", directory / "suffixes.lst"
    exact.write_text("".join(f"{name}\n" for name in exact_names(directory)))
    ends.write_text("".join(f"{end}\n" for end in suffixes(directory)))
    configuration = directory / f"haproxy-{port}.cfg"
    configuration.write_text(
        _CONFIGURATION.format(
            listen=port,
            exact=exact,
            suffixes=ends,
            maxconn=resource.getrlimit(resource.RLIMIT_NOFILE)[1] * 3 // 8,
        )
    )
    return ["haproxy", "-db", "-f", str(configuration)]
