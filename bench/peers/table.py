"""Every data plane by the name that ``--peers`` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.peers.envoy import envoy
from bench.peers.forwarding import forwarding
from bench.peers.haproxy import haproxy, haproxy_splice
from bench.peers.mitmproxy import mitmproxy
from bench.peers.nginx import nginx
from bench.peers.ours import egressproxy, interpreted
from bench.peers.sniproxy import sniproxy
from bench.peers.squid import squid

if TYPE_CHECKING:
    from bench.peers.peer import Start

PEERS: Final[dict[str, Start]] = {
    "none": forwarding,
    "haproxy": haproxy,
    "egressproxy": egressproxy,
    "haproxy-splice": haproxy_splice,
    "interpreted": interpreted,
    "nginx": nginx,
    "squid": squid,
    "sniproxy": sniproxy,
    "envoy": envoy,
    "mitmproxy": mitmproxy,
}

PRINCIPAL: Final = ("none", "haproxy", "egressproxy", "haproxy-splice")
"""Those whose ratios have goals: measured more often than the others."""

SLOW: Final = {"mitmproxy": 0.1}
"""Part of the load that takes such a data plane as long as all of it takes others."""
