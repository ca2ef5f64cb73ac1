"""The lab's DNS server, UDP and TCP: A and AAAA of ``sites``, NXDOMAIN below ``.invalid``."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, Final, cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from lab import sites

if TYPE_CHECKING:
    from lab.events import EventWriter

PORT: Final = 53
TTL_S: Final = 30
_FAMILIES: Final = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}


def answer(question: bytes) -> tuple[str, bytes]:
    """The name asked for and the answer; an unreadable question raises DNSException."""
    query = dns.message.from_wire(question)
    asked = query.question[0]
    name = asked.name.to_text(omit_final_dot=True).lower()
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AA | dns.flags.RA
    if name.endswith(sites.MISSING_SUFFIX):
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif family := _FAMILIES.get(asked.rdtype):
        found = [
            address
            for address in sites.addresses_of(name)
            if ipaddress.ip_address(address).version == family
        ]
        if found:
            rrset = dns.rrset.from_text_list(
                asked.name, TTL_S, dns.rdataclass.IN, asked.rdtype, found
            )
            response.answer.append(rrset)
    return name, response.to_wire()


class _Udp(asyncio.DatagramProtocol):
    """Answers each datagram to where it came from."""

    def __init__(self, events: EventWriter) -> None:
        self._events = events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            name, response = answer(data)
        except dns.exception.DNSException:
            return
        self._events.write("dns", name=name, peer=addr[0])
        self._transport.sendto(response, addr)


async def serve_dns(address: str, events: EventWriter) -> None:
    """Listen on UDP and TCP port 53 of an address; serves until the loop ends."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: _Udp(events), local_addr=(address, PORT))

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                name, response = answer(await reader.readexactly(length))
                events.write("dns", name=name, peer=writer.get_extra_info("peername")[0])
                writer.write(len(response).to_bytes(2, "big") + response)
        except (asyncio.IncompleteReadError, ConnectionError, dns.exception.DNSException):
            writer.close()

    await asyncio.start_server(session, address, PORT)
