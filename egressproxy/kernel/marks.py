"""Every bit of a packet's or a connection's mark that this gateway uses.

A packet's mark (``meta mark``, ``fwmark`` in ip-rule(8), SO_MARK) and a connection's (``ct mark``)
belong to everybody on the machine: ours are single bits, set and asked for under a mask, never
overwritten whole. ``UPSTREAM`` alone is a whole value, the one that SO_MARK gives our own sockets.
"""

from __future__ import annotations

from typing import Final

UPSTREAM: Final = 0x65
"""SO_MARK of our own connections to upstreams; an option can say another."""

FORWARDED: Final = 0x0100_0000
"""ct mark: pass 1 allowed this connection, the kernel forwards it."""
PROXIED: Final = 0x0800_0000
"""ct mark: this connection is the proxy's, by REDIRECT or TPROXY."""

JUDGED: Final = 0x0200_0000
"""meta mark: our table allows this packet to be forwarded; the routing guard stops all others."""
TPROXY: Final = 0x0400_0000
"""meta mark: deliver this packet to a transparent socket here."""
OLD_ALLOWS: Final = 0x1000_0000
"""meta mark, between two policies only: the policy that goes would forward this packet."""
