"""``Known``: the names that a policy of ``mode: warn-on-new`` does not take for new.

A frozen table of exact names in one buffer, as ``table`` has it, so that a worker takes over a
million of them without a pause, and the clients that may have no new names at all.
"""

from __future__ import annotations

from hashlib import sha256
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING, Final

from egressproxy.policy.address import pack_address
from egressproxy.policy.table import Table, build_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.policy.table import Sliceable, TableLayout

_IPV4: Final = 4


class Known:
    """Exact names, and clients to whom every name counts as known.

    Args:
        buffer: of the table.
        layout: of the table.
        crowded: addresses, and networks (IPv4 /16, IPv6 /64) by their first address: of such
            clients so many names came that not all of them were remembered.
        digest: of all that is in it.
    """

    __slots__ = ("_table", "crowded", "digest")

    def __init__(
        self, buffer: Sliceable, layout: TableLayout, crowded: frozenset[str], digest: str
    ) -> None:
        self._table = Table(buffer, layout)
        self.crowded = crowded
        self.digest = digest

    @property
    def buffer(self) -> bytes:
        """The table's octets."""
        return self._table.buffer[: self.layout.size]

    @property
    def layout(self) -> TableLayout:
        """Where in the buffer what is."""
        return self._table.layout

    def has(self, name: str) -> bool:
        """Whether a name, in normal form, is known."""
        return self._table.find(name.encode()) is not None

    def is_crowded(self, src: str) -> bool:
        """Whether to a client, by its address, every name counts as known."""
        return bool(self.crowded) and not self.crowded.isdisjoint((src, _network_of(src)))


def known_of(names: Iterable[str], crowded: Iterable[str] = ()) -> Known:
    """Pack names in normal form, repeated or not.

    Raises:
        TableTooLargeError: more than 4 GiB of names.
    """
    keys = sorted({name.encode() for name in names})
    sources = frozenset(crowded)
    total = sha256()
    for key in keys:
        total.update(key + b"\n")
    for source in sorted(sources):
        total.update(b" " + source.encode() + b"\n")
    buffer, layout = build_table(keys, (1 for _ in keys))
    return Known(buffer, layout, sources, total.hexdigest())


def _network_of(src: str) -> str:
    """The first address of the network that stands for a client among very many."""
    packed = pack_address(src)
    if packed is None:
        return src
    if len(packed) == _IPV4:
        return inet_ntop(AF_INET, packed[:2] + bytes(2))
    return inet_ntop(AF_INET6, packed[:8] + bytes(8))
