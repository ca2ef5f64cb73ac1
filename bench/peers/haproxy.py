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
  stats socket {socket} mode 600 expose-fd listeners
defaults
  mode tcp
  timeout connect 5s
  timeout client 2h
  timeout server 2h
  option {splice}
  option clitcpka
  option srvtcpka
frontend egress
  bind :{listen} defer-accept
  tcp-request inspect-delay 5s
  acl allowed req.ssl_sni,lower -f {exact}
  {wildcards}
  tcp-request content accept if {{ req.ssl_hello_type 1 }} allowed
  tcp-request content reject
  default_backend original
backend original
  server original 0.0.0.0:0
"""


_FEW: Final = 64
_CUTS: Final = range(2, 9)


@contextmanager
def haproxy(
    network: Network, directory: Path, *, port: int = LISTEN, processes: int = 1
) -> Iterator[Peer]:
    """One thread a process; it finds out itself which streams are worth a splice."""
    commands = {each: haproxy_command(directory, each) for each in range(port, port + processes)}
    with redirected("HAProxy", network, directory, commands) as peer:
        yield peer


@contextmanager
def haproxy_splice(
    network: Network, directory: Path, *, port: int = LISTEN, processes: int = 1
) -> Iterator[Peer]:
    """Every answer is spliced: some more CPU a small connection, much less in bulk."""
    commands = {
        each: haproxy_command(directory, each, "splice-response")
        for each in range(port, port + processes)
    }
    with redirected("HAProxy splice", network, directory, commands) as peer:
        yield peer


def haproxy_command(directory: Path, port: int, splice: str = "splice-auto") -> list[str]:
    """What starts it, with its files written anew from the policy of the folder."""
    exact, ends = directory / "exact.lst", directory / "suffixes.lst"
    exact.write_text("".join(f"{name}\n" for name in exact_names(directory)))
    found = suffixes(directory)
    ends.write_text("".join(f"{end if len(found) <= _FEW else end[1:]}\n" for end in found))
    configuration = directory / f"haproxy-{port}.cfg"
    configuration.write_text(
        _CONFIGURATION.format(
            listen=port,
            splice=splice,
            socket=directory / f"haproxy-{port}.sock",
            exact=exact,
            wildcards=_wildcards(ends, len(found)),
            maxconn=resource.getrlimit(resource.RLIMIT_NOFILE)[1] * 3 // 8,
        )
    )
    return ["haproxy", "-db", "-f", str(configuration)]


def _wildcards(ends: Path, count: int) -> str:
    """ACLs of suffixes: few are compared one by one, many are a tree.

    ``-m end`` and ``-i`` walk a list. Many are therefore exact names, of which what is left of the
    asked one is looked up in lower case, with one label cut off, two, up to seven.
    """
    if count <= _FEW:
        return f"acl allowed req.ssl_sni -i -m end -f {ends}"
    return "\n  ".join(f"acl allowed req.ssl_sni,lower,field({cut},.,0) -f {ends}" for cut in _CUTS)
