"""``Stub``: one question to the DNS servers, over aiodns; the only place that knows the library.

aiodns (c-ares) does the wire work: several servers with failover, retries, TCP after truncation,
random ids, a thread of its own for the sockets. What it gives is still a peer's word: only records
of the asked class and type whose owner is reached from the question by CNAMEs (RFC 1034
section 3.6.2) count, and no more of them than the bounds below.

c-ares also keeps a cache of its own, without a bound on names and with its own idea of TTLs, which
aiodns has no option for. It is emptied a second after each question by ``ares_reinit``, which
forgets answers and remembers which servers are down.
"""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass
from enum import Enum
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

import aiodns
import pycares

from egressproxy.errors import ServiceError
from egressproxy.ports import MAX_PORT
from egressproxy.resolve.cache import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from egressproxy.names import DnsName

MAX_ADDRESSES: Final = 32  # of one family; the rest of an answer is ignored
MAX_RECORDS: Final = 512  # looked at in one answer
MAX_ALIASES: Final = 16  # CNAMEs followed

_TRIES: Final = 4  # of each server; each try waits twice as long as the one before
_FLUSH_DELAY_S: Final = 1.0
_CLOSE_TIMEOUT_S: Final = 1.0
_MAX_TTL_S: Final = 0x7FFF_FFFF  # above it is to be read as 0, RFC 2181 section 8
_BRACKETED: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::(.+))?")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"

_FAILURES: Final = {
    pycares.errno.ARES_ENOTFOUND: Failure.NXDOMAIN,
    pycares.errno.ARES_ENODATA: Failure.NO_ADDRESS,
    pycares.errno.ARES_ETIMEOUT: Failure.TIMEOUT,
    pycares.errno.ARES_ECANCELLED: Failure.CLOSED,
    pycares.errno.ARES_EDESTRUCTION: Failure.CLOSED,
}


class Family(Enum):
    """An address family as DNS sees it; the value is the record type's name."""

    IPV4 = "A"
    IPV6 = "AAAA"


_TYPES: Final = {Family.IPV4: pycares.QUERY_TYPE_A, Family.IPV6: pycares.QUERY_TYPE_AAAA}
_AddressData: Final = (pycares.ARecordData, pycares.AAAARecordData)


@dataclass(frozen=True, slots=True)
class Part:
    """What one question brought: addresses of one family, or why there are none."""

    addresses: tuple[str, ...] = ()
    ttl_s: int = 0
    error: Failure = Failure.NONE


class Stub:
    """Asks the given servers, or those of the system (resolv.conf, followed when it changes).

    Belongs to the event loop it was made in.

    Args:
        servers: as ``parse_server`` gives them; tried in order.
        timeout_s: the longest a caller waits; decides how soon the next server is tried.
    """

    def __init__(self, servers: Sequence[str], timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._resolver = _FlushableResolver(
            servers or None,
            loop=self._loop,
            timeout=timeout_s / (2**_TRIES - 1),
            tries=_TRIES,
        )
        self._futures: set[asyncio.Future[pycares.DNSResult]] = set()
        self._flush_timer: asyncio.TimerHandle | None = None

    def ask(self, name: DnsName, family: Family, callback: Callable[[Part], None]) -> None:
        """Ask one question; ``callback`` is called from the loop exactly once, on failure too."""
        future = self._resolver.query_dns(name, family.value)
        self._futures.add(future)
        future.add_done_callback(partial(self._answered, name, family, callback))
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(_FLUSH_DELAY_S, self._flush)

    async def aclose(self) -> None:
        """Cancel what is open (its callbacks get ``closed``) and let go of sockets and thread."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        await self._resolver.close()
        if self._futures:
            await asyncio.wait(self._futures, timeout=_CLOSE_TIMEOUT_S)

    def _answered(
        self,
        name: DnsName,
        family: Family,
        callback: Callable[[Part], None],
        future: asyncio.Future[pycares.DNSResult],
    ) -> None:
        self._futures.discard(future)
        if future.cancelled():
            callback(Part(error=Failure.CLOSED))
        elif (error := future.exception()) is not None:
            code = error.args[0] if error.args else None
            callback(Part(error=_FAILURES.get(code, Failure.SERVFAIL)))
        else:
            callback(read_records(name, family, future.result().answer))

    def _flush(self) -> None:
        self._flush_timer = None
        self._resolver.flush()


class _FlushableResolver(aiodns.DNSResolver):
    def flush(self) -> None:
        self._channel.reinit()


def read_records(name: DnsName, family: Family, records: Sequence[pycares.DNSRecord]) -> Part:
    """The addresses that an answer section gives for a name; hostile sections give none."""
    aliases: dict[str, tuple[str, int]] = {}
    found: dict[str, list[tuple[str, int]]] = {}
    for record in records[:MAX_RECORDS]:
        if record.record_class != pycares.QUERY_CLASS_IN:
            continue
        data = record.data
        if isinstance(data, pycares.CNAMERecordData):
            aliases.setdefault(_plain(record.name), (_plain(data.cname), _ttl_s(record)))
        elif record.type == _TYPES[family] and isinstance(data, _AddressData):
            address = _canonical(data.addr)
            found.setdefault(_plain(record.name), []).append((address, _ttl_s(record)))
    owner, ttl_s = str(name), _MAX_TTL_S
    for _ in range(MAX_ALIASES):
        if owner in found or owner not in aliases:
            break
        owner, alias_ttl_s = aliases[owner]
        ttl_s = min(ttl_s, alias_ttl_s)
    if owner not in found:
        return Part(error=Failure.NO_ADDRESS)
    addresses = tuple(dict.fromkeys(address for address, _ in found[owner]))
    return Part(addresses[:MAX_ADDRESSES], min(ttl_s, *(ttl for _, ttl in found[owner])))


def parse_server(text: str) -> str:
    """Check ``ADDRESS``, ``ADDRESS:PORT`` or ``[ADDRESS]:PORT`` and give it as c-ares reads it.

    Raises:
        ServiceError: not an address with an optional port.
    """
    host, port = text, "53"
    if bracketed := _BRACKETED.fullmatch(text):
        host, port = bracketed[1], bracketed[2] or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address: IPv4Address | IPv6Address | None = ip_address(host)
    except ValueError:
        address = None
    number = int(port) if _PORT.fullmatch(port) else 0
    if address is None or not 0 < number <= MAX_PORT:
        raise ServiceError(
            f"{text!r} is not a DNS server", hint="write 10.0.0.10, 10.0.0.10:5353 or [fd00::10]:53"
        )
    return f"[{address}]:{number}" if address.version == 6 else f"{address}:{number}"


def _plain(name: str | bytes) -> str:
    # pycares hands a name that is not ASCII over as bytes: it is nobody's.
    return name.rstrip(".").lower() if isinstance(name, str) else ""


def _ttl_s(record: pycares.DNSRecord) -> int:
    return record.ttl if 0 <= record.ttl <= _MAX_TTL_S else 0


def _canonical(text: str) -> str:
    """As ``inet_ntop`` writes it, IPv4-mapped addresses unwrapped."""
    if ":" not in text:
        return text
    packed = socket.inet_pton(socket.AF_INET6, text)
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[len(_MAPPED) :])
    return socket.inet_ntop(socket.AF_INET6, packed)
