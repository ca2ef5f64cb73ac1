"""Connections that the kernel tracks: listed, and ended one by one.

Own ctnetlink messages (linux/netfilter/nfnetlink_conntrack.h), in the network namespace of the
calling thread. Attributes are big-endian. Every call blocks for as long as the kernel takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Entry(NamedTuple):
    """One tracked connection; addresses are canonical text.

    ``protocol`` is the IP protocol number; ports are 0 where it has none. ``reply_src`` is who
    answers: another than ``dst`` after DNAT; ``reply_dst`` another than ``src`` after SNAT.
    ``icmp_type`` and ``icmp_code`` are -1 where it is not ICMP. ``status`` are the ``IPS_`` bits of
    linux/netfilter/nf_conntrack_common.h.
    """

    id: int
    family: int
    protocol: int
    src: str
    sport: int
    dst: str
    dport: int
    reply_src: str
    reply_sport: int
    reply_dst: str
    reply_dport: int
    mark: int
    status: int
    zone: int = 0
    icmp_type: int = -1
    icmp_code: int = -1
    icmp_id: int = 0


class Conntrack:
    """A netlink socket to ctnetlink; a context manager, not for two threads at once.

    Raises:
        KernelError: no CAP_NET_ADMIN, or no nf_conntrack_netlink.
    """

    def __enter__(self) -> Conntrack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        raise NotImplementedError

    def entries(self, *, mark: int = 0, mask: int = 0) -> Iterator[Entry]:
        """Every connection, IPv4 and IPv6, whose mark has these bits; the kernel filters.

        A moment's view: entries come and go meanwhile. Read it to its end before another call.

        Raises:
            KernelError: the kernel refuses, or does not answer.
        """
        raise NotImplementedError

    def delete(self, entry: Entry) -> bool:
        """End one connection; ``False`` where it is gone already, or is another one by now.

        Raises:
            KernelError: the kernel refuses.
        """
        raise NotImplementedError


def newly_denied(entries: Iterable[Entry], judge: Callable[[Entry], bool]) -> Iterator[Entry]:
    """The entries for which ``judge`` does not say that they are allowed."""
    return (entry for entry in entries if not judge(entry))
