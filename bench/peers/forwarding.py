"""No proxy at all: what the network itself costs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.peers.peer import NO_REDIRECT, Peer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.network import Network


@contextmanager
def forwarding(network: Network, _directory: Path, **_: int) -> Iterator[Peer]:
    """The hub's kernel forwards."""
    peer = Peer("no proxy", network.hub, enter=NO_REDIRECT, leave=NO_REDIRECT)
    with peer.in_path():
        yield peer
