"""Connections that the kernel tracks: listed, and ended one by one.

Own ctnetlink messages (linux/netfilter/nfnetlink_conntrack.h), in the network namespace of the
calling thread. Attributes are big-endian. Every call blocks for as long as the kernel takes.
"""

from __future__ import annotations

import errno
import struct
from functools import lru_cache
from socket import AF_INET, AF_INET6, AF_UNSPEC, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Final, NamedTuple

from egressproxy.errors import KernelError
from egressproxy.kernel.netlink import Netlink, attribute, attributes, nested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NETLINK_NETFILTER: Final = 12  # linux/netlink.h; no name in the socket module
_SUBSYSTEM: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET: Final = _SUBSYSTEM | 1
_DELETE: Final = _SUBSYSTEM | 2
_HEADER: Final = struct.Struct("!BBH")  # family, version, resource
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_MARK = 1, 2, 3, 8
_CTA_ID, _CTA_ZONE, _CTA_MARK_MASK = 12, 18, 21
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IP: Final[dict[int, tuple[int, int]]] = {
    AF_INET: (1, 2),
    AF_INET6: (3, 4),
}  # source, destination
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_CTA_PROTO_ICMP: Final[dict[int, tuple[int, int, int]]] = {  # id, type, code
    AF_INET: (4, 5, 6),
    AF_INET6: (7, 8, 9),
}
_BYTES: Final[dict[int, int]] = {AF_INET: 4, AF_INET6: 16}

IPS_SEEN_REPLY: Final = 1 << 1
IPS_ASSURED: Final = 1 << 2
IPS_SRC_NAT: Final = 1 << 4
IPS_DST_NAT: Final = 1 << 5


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


class _Tuple(NamedTuple):
    """One direction of a connection, as the kernel keys it."""

    protocol: int
    src: str
    sport: int
    dst: str
    dport: int
    icmp_type: int
    icmp_code: int
    icmp_id: int


class Conntrack:
    """A netlink socket to ctnetlink; a context manager, for one thread.

    Raises:
        KernelError: there is no netlink here.
    """

    def __init__(self, *, timeout_s: float = 10.0) -> None:
        self._netlink = Netlink(_NETLINK_NETFILTER, timeout_s=timeout_s)

    def __enter__(self) -> Conntrack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def entries(self, *, mark: int = 0, mask: int = 0) -> Iterator[Entry]:
        """Every connection, IPv4 and IPv6, whose mark under the mask is ``mark``.

        The kernel filters. A moment's view: entries come and go meanwhile, and one may be there
        twice. Read it to its end before another call.

        Raises:
            KernelError: the kernel refuses, or does not answer.
        """
        asked = _HEADER.pack(AF_UNSPEC, 0, 0)
        if mask:
            asked += attribute(_CTA_MARK, mark.to_bytes(4)) + attribute(
                _CTA_MARK_MASK, mask.to_bytes(4)
            )
        try:
            for payload in self._netlink.dump(_GET, asked):
                entry = parse_entry(payload)
                if entry is not None and entry.mark & mask == mark & mask:
                    yield entry
        except OSError as error:
            raise _refused(error) from error

    def delete(self, entry: Entry) -> bool:
        """End one connection; ``False`` where it is gone already, or is another one by now.

        Raises:
            KernelError: the kernel refuses.
        """
        try:
            self._netlink.request(_DELETE, 0, deletion(entry))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise _refused(error) from error
        return True


def newly_denied(entries: Iterable[Entry], judge: Callable[[Entry], bool]) -> Iterator[Entry]:
    """The entries for which ``judge`` does not say that they are allowed."""
    return (entry for entry in entries if not judge(entry))


def parse_entry(payload: bytes) -> Entry | None:
    """One message of a dump; ``None`` for what is neither IPv4 nor IPv6.

    Raises:
        KernelError: it is no such message.
    """
    if len(payload) < _HEADER.size:
        raise KernelError("ctnetlink: a message without its header")
    family = payload[0]
    if family not in _BYTES:
        return None
    found = attributes(payload, _HEADER.size)
    one = _tuple(found.get(_CTA_TUPLE_ORIG, b""), family)
    reply = _tuple(found.get(_CTA_TUPLE_REPLY, b""), family)
    return Entry(
        id=_number(found, _CTA_ID, 4),
        family=family,
        protocol=one.protocol,
        src=one.src,
        sport=one.sport,
        dst=one.dst,
        dport=one.dport,
        reply_src=reply.src,
        reply_sport=reply.sport,
        reply_dst=reply.dst,
        reply_dport=reply.dport,
        mark=_number(found, _CTA_MARK, 4),
        status=_number(found, _CTA_STATUS, 4),
        zone=_number(found, _CTA_ZONE, 2),
        icmp_type=one.icmp_type,
        icmp_code=one.icmp_code,
        icmp_id=one.icmp_id,
    )


def deletion(entry: Entry) -> bytes:
    """The message that deletes exactly this entry: its tuple, and its id against a later one."""
    source, destination = _CTA_IP[entry.family]
    protocol = [attribute(_CTA_PROTO_NUM, entry.protocol.to_bytes(1))]
    if entry.icmp_type >= 0:
        id_, type_, code = _CTA_PROTO_ICMP[entry.family]
        protocol += (
            attribute(id_, entry.icmp_id.to_bytes(2)),
            attribute(type_, entry.icmp_type.to_bytes(1)),
            attribute(code, entry.icmp_code.to_bytes(1)),
        )
    else:
        protocol += (
            attribute(_CTA_PROTO_SRC_PORT, entry.sport.to_bytes(2)),
            attribute(_CTA_PROTO_DST_PORT, entry.dport.to_bytes(2)),
        )
    tuple_ = nested(
        _CTA_TUPLE_ORIG,
        nested(
            _CTA_TUPLE_IP,
            attribute(source, inet_pton(entry.family, entry.src)),
            attribute(destination, inet_pton(entry.family, entry.dst)),
        ),
        nested(_CTA_TUPLE_PROTO, *protocol),
    )
    zone = attribute(_CTA_ZONE, entry.zone.to_bytes(2)) if entry.zone else b""
    id_of = attribute(_CTA_ID, entry.id.to_bytes(4))
    return _HEADER.pack(entry.family, 0, 0) + tuple_ + zone + id_of


def _tuple(data: bytes, family: int) -> _Tuple:
    found = attributes(data)
    addresses = attributes(found.get(_CTA_TUPLE_IP, b""))
    protocol = attributes(found.get(_CTA_TUPLE_PROTO, b""))
    source, destination = _CTA_IP[family]
    id_, type_, code = _CTA_PROTO_ICMP[family]
    return _Tuple(
        _number(protocol, _CTA_PROTO_NUM, 1),
        _address(addresses.get(source, b""), family),
        _number(protocol, _CTA_PROTO_SRC_PORT, 2),
        _address(addresses.get(destination, b""), family),
        _number(protocol, _CTA_PROTO_DST_PORT, 2),
        _number(protocol, type_, 1) if type_ in protocol else -1,
        _number(protocol, code, 1) if code in protocol else -1,
        _number(protocol, id_, 2),
    )


def _number(found: dict[int, bytes], kind: int, size: int) -> int:
    """A big-endian number; 0 where there is none.

    Raises:
        KernelError: it has another size.
    """
    value = found.get(kind)
    if value is None:
        return 0
    if len(value) != size:
        raise KernelError("ctnetlink: a number of another size than it has to be")
    return int.from_bytes(value)


@lru_cache(maxsize=4096)
def _address(value: bytes, family: int) -> str:
    if len(value) != _BYTES[family]:
        raise KernelError("ctnetlink: a connection without its addresses")
    return inet_ntop(family, value)


def _refused(error: OSError) -> KernelError:
    if isinstance(error, PermissionError):
        return KernelError(
            "tracked connections may not be read by this process",
            hint="it needs CAP_NET_ADMIN: run it as root",
            code="permission",
        )
    if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT):
        return KernelError(
            f"tracked connections cannot be listed: {error.strerror}",
            hint="modprobe nf_conntrack_netlink",
            code="module",
        )
    return KernelError(f"tracked connections: {error.strerror}")
