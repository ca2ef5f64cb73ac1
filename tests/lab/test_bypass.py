"""Ways around the gateway, tried with packets that no honest client sends: none leads out."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, closing
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from egressproxy.kernel.firewall_options import Intercept
from egressproxy.service.firewall_configuration import DEFAULT_PROXY_PORT
from lab import policies, sites
from lab.gateway import gateway as running_gateway
from lab.network import Network, network
from lab.topology import INSIDE
from tests.kernel.frames import Kind, Sent, Wire
from tests.kernel.one_nic import ping
from tests.lab import forged
from tests.lab.forged import SPORT, ip, tcp, udp
from tests.lab.hammer import Door, knock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.gateway import Gateway
    from lab.namespaces import Namespace

pytestmark = [pytest.mark.netns, pytest.mark.timeout(60)]

_THERE: Final = ", ".join(f'"{address}"' for address in sites.CONTOSO.addresses)
POLICY: Final = policies.policy(
    policies.DNS,
    rules=f"""\
  - {{name: contoso, to: ["www.contoso.example"], ports: [https]}}
  - {{name: sql, to: [{_THERE}], ports: ["tcp:1433"]}}
  - {{name: time, to: [{_THERE}], ports: ["udp:123"]}}
""",
)
ALLOWED: Final = 123
DENIED: Final = 9999
FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
_IDENTS: Final = count(1)
FLAGS: Final = {
    "ack": 0x10,
    "fin": 0x01,
    "rst": 0x04,
    "null": 0x00,
    "xmas": 0x29,
    "syn-ack": 0x12,
    "syn-fin": 0x03,
    "syn-rst": 0x06,
}


@dataclass(frozen=True, slots=True)
class Forged(Sent):
    """Packets from the spoke, made by hand."""

    make: Callable[[bytes], list[bytes]] | None = None

    def packets(self, tag: bytes) -> list[bytes]:
        assert self.make is not None
        return self.make(tag)


Make: TypeAlias = "Callable[[bytes], list[bytes]]"
Ways: TypeAlias = "dict[str, Make]"


class Spoke:
    """What a client of the spoke can make for one version of IP: packets that carry a tag."""

    def __init__(self, version: int) -> None:
        six = self.is_six = version == 6
        self.src, self.there = sites.SPOKE_NODE[six], sites.CONTOSO.addresses[six]

    def datagram(self, port: int, *, src: str = "", dst: str = "", sport: int = SPORT) -> Make:
        src, dst = src or self.src, dst or self.there
        return lambda tag: [ip(src, dst, forged.UDP, udp(src, dst, port, tag, sport=sport))]

    def segment(self, port: int, flags: int) -> Make:
        def make(tag: bytes) -> list[bytes]:
            return [self.carry(forged.TCP, tcp(self.src, self.there, port, tag, flags=flags))]

        return make

    def as_protocol(self, protocol: int) -> Make:
        """What would be allowed if it were UDP."""
        return lambda tag: [self.carry(protocol, udp(self.src, self.there, ALLOWED, tag))]

    def inside(self, protocol: int) -> Make:
        def make(tag: bytes) -> list[bytes]:
            packet = self.carry(forged.UDP, udp(self.src, self.there, ALLOWED, tag))
            return [self.carry(protocol, packet)]

        return make

    def message(self, kind: int) -> Make:
        protocol = forged.ICMPV6 if self.is_six else forged.ICMP

        def make(tag: bytes) -> list[bytes]:
            text = forged.icmp(self.src, self.there, kind, 0, bytes(4) + tag)
            return [self.carry(protocol, text)]

        return make

    def fragments(self, *parts: tuple[int, int, int]) -> Make:
        """Of datagrams: to which port, from which octet, to which (0: the end, none follows)."""

        def make(tag: bytes) -> list[bytes]:
            made, ident = [], next(_IDENTS)
            for port, start, end in parts:
                whole = udp(self.src, self.there, port, bytes(8) + tag)
                part = whole[start : end or None]
                made.append(
                    ip(
                        self.src,
                        self.there,
                        forged.UDP,
                        part,
                        fragment=start,
                        more=end > 0,
                        ident=ident,
                    )
                )
            return made

        return make

    def authenticated(self, tag: bytes) -> list[bytes]:
        body = forged.authentication(forged.UDP) + udp(self.src, self.there, DENIED, tag)
        return [self.carry(forged.AH, body)]

    def headless(self, tag: bytes) -> list[bytes]:
        return [self.carry(forged.UDP, b"")[:20] + tag]

    def carry(self, protocol: int, body: bytes) -> bytes:
        return ip(self.src, self.there, protocol, body)


def _everywhere(version: int) -> Ways:
    """What both versions can be asked."""
    spoke, six = Spoke(version), version == 6
    messages = (1, 3, 4, 128, 129, 137, 138) if six else (0, 3, 4, 5, 8, 11, 13, 17)
    split = spoke.fragments
    return {
        **_ends(version),
        **{f"tcp {name}": spoke.segment(1433, flags) for name, flags in FLAGS.items()},
        **{f"tcp {name} denied": spoke.segment(DENIED, flags) for name, flags in FLAGS.items()},
        **{f"tcp {name} to the proxy": spoke.segment(443, flags) for name, flags in FLAGS.items()},
        **{f"protocol {each}": spoke.as_protocol(each) for each in (33, 47, 50, 59, 132, 136, 253)},
        **{f"tunnelled in protocol {each}": spoke.inside(each) for each in (4, 41, 47, 137)},
        **{f"icmp {kind}": spoke.message(kind) for kind in messages},
        "a later fragment alone": split((ALLOWED, 16, 0)),
        "fragments to a denied port": split((DENIED, 0, 16), (DENIED, 16, 0)),
        "fragments in the other order": split((DENIED, 16, 0), (DENIED, 0, 16)),
        "fragments with half a header": split((DENIED, 0, 8), (DENIED, 8, 0)),
        "a second beginning": split((ALLOWED, 0, 16), (DENIED, 0, 0)),
        "an overlapping end": split((ALLOWED, 0, 24), (DENIED, 8, 0)),
        "authenticated": spoke.authenticated,
        "no header at all": spoke.headless,
    }


def _ends(version: int) -> Ways:
    """Addresses and ports that mean something else than they say."""
    spoke, six = Spoke(version), version == 6
    strangers = {
        "the hub": sites.HUB_INSIDE[six],
        "the hub's other side": sites.HUB_OUTSIDE[six],
        "the internet": sites.ELSEWHERE.addresses[six],
        "loopback": "::1" if six else "127.0.0.1",
        "nobody": "::" if six else "0.0.0.0",
        "a group": "ff02::1" if six else "224.0.0.1",
        "everybody": "::ffff:10.240.0.4" if six else "255.255.255.255",
    }
    groups = {
        "link group": "ff02::1" if six else "224.0.0.1",
        "wide group": "ff0e::1" if six else "239.1.1.1",
        "all of the outer link": "2603:1040:50::" if six else "20.50.255.255",
        "loopback": "::1" if six else "127.0.0.1",
        "link-local": "fe80::1" if six else "169.254.169.254",
        "azure": "fd00:ec2::254" if six else "168.63.129.16",
        "everybody": "::ffff:20.18.0.1" if six else "255.255.255.255",
        "another form": "64:ff9b::1412:1" if six else "0.0.0.0",
    }
    ports = (53, 67, ALLOWED, 547)
    return {
        **{f"udp from port {port}": spoke.datagram(DENIED, sport=port) for port in ports},
        "quic": spoke.datagram(443),
        **{f"from {who}": spoke.datagram(ALLOWED, src=src) for who, src in strangers.items()},
        **{f"to {what}": spoke.datagram(ALLOWED, dst=dst) for what, dst in groups.items()},
    }


def _ipv4() -> Ways:
    spoke, there, hub = sites.SPOKE_NODE[0], sites.CONTOSO.addresses[0], sites.HUB_INSIDE[0]

    def routed(kind: int, dst: str, *hops: str) -> Make:
        way = b"".join(socket.inet_aton(hop) for hop in hops)
        text = bytes([kind, 3 + len(way), 4]) + way
        return lambda tag: [ip(spoke, dst, forged.UDP, udp(spoke, dst, ALLOWED, tag), options=text)]

    return {
        **{f"source route {kind} by the hub": routed(kind, hub, there) for kind in (131, 137)},
        **{
            f"source route {kind} on": routed(kind, there, sites.ELSEWHERE.addresses[0])
            for kind in (131, 137)
        },
        "an impossible option": lambda tag: [
            ip(
                spoke,
                there,
                forged.UDP,
                udp(spoke, there, ALLOWED, tag),
                options=b"\x07\x28\x04\x00",
            )
        ],
    }


def _ipv6() -> Ways:
    spoke, there, hub = sites.SPOKE_NODE[1], sites.CONTOSO.addresses[1], sites.HUB_INSIDE[1]

    def behind(first: int, *headers: bytes, port: int = DENIED) -> Make:
        return lambda tag: [
            ip(spoke, there, first, b"".join(headers) + udp(spoke, there, port, tag))
        ]

    def routed(kind: int) -> Make:
        return lambda tag: [
            ip(
                spoke,
                hub,
                forged.ROUTING,
                forged.routing(forged.UDP, kind, there) + udp(spoke, there, ALLOWED, tag),
            )
        ]

    def on(kind: int, *headers: bytes, left: int = 1) -> Make:
        """By way of the allowed host, elsewhere."""
        way = forged.routing(forged.UDP, kind, sites.ELSEWHERE.addresses[1])
        way = way[:3] + bytes([left]) + way[4:]
        return behind(forged.ROUTING, *headers, way, port=ALLOWED)

    many = forged.options(forged.DESTINATION)
    over = forged.routing(forged.ROUTING, 0, there)
    return {
        **{f"routing header {kind} on": on(kind) for kind in (0, 2, 3, 4)},
        "routing header behind one that is done": on(0, over[:3] + b"\0" + over[4:]),
        "routing header that is done": on(0, left=0),
        **{f"routing header {kind} by the hub": routed(kind) for kind in (0, 2, 3, 4)},
        "behind hop-by-hop options": behind(forged.HOP_BY_HOP, forged.options(forged.UDP)),
        "behind options": behind(forged.DESTINATION, forged.options(forged.UDP)),
        "behind many options": behind(
            forged.DESTINATION, *(9 * [many]), forged.options(forged.UDP)
        ),
        "options after tcp's place": behind(
            forged.DESTINATION, forged.options(forged.TCP), port=ALLOWED
        ),
        "hop-by-hop options in the middle": behind(
            forged.DESTINATION,
            forged.options(forged.HOP_BY_HOP),
            forged.options(forged.UDP),
            port=DENIED,
        ),
        "an atomic fragment": behind(forged.FRAGMENT, bytes([forged.UDP, 0, 0, 0, 0, 0, 0, 9])),
        "mobility": behind(135, forged.options(forged.UDP)),
    }


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with network(tmp_path_factory.mktemp("lab")) as built:
        yield built


@pytest.fixture(scope="module", params=list(Intercept))
def gateway(lab: Network, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with running_gateway(
        lab, POLICY, intercept=request.param, options=("--workers", "1")
    ) as running:
        yield running


def _mac(hub: Namespace, link: str) -> str:
    return str(json.loads(hub.run("ip", "-j", "link", "show", link))[0]["address"])


def _honest(version: int) -> Ways:
    """The same shapes to what is allowed: these come out, or the others would show nothing."""
    six = version == 6
    src, dst = sites.SPOKE_NODE[six], sites.CONTOSO.addresses[six]

    def fragments(tag: bytes) -> list[bytes]:
        whole, ident = udp(src, dst, ALLOWED, bytes(8) + tag), next(_IDENTS)
        return [
            ip(src, dst, forged.UDP, whole[16:], fragment=16, ident=ident),
            ip(src, dst, forged.UDP, whole[:16], more=True, ident=ident),
        ]

    def behind_options(tag: bytes) -> list[bytes]:
        body = udp(src, dst, ALLOWED, tag, sport=SPORT + 1)
        if not six:
            return [ip(src, dst, forged.UDP, body, options=b"\x94\x04\0\0")]
        return [ip(src, dst, forged.DESTINATION, forged.options(forged.UDP) + body)]

    return {
        "udp": lambda tag: [ip(src, dst, forged.UDP, udp(src, dst, ALLOWED, tag, sport=53))],
        "syn": lambda tag: [
            ip(src, dst, forged.TCP, tcp(src, dst, 1433, tag, flags=0x02, sport=SPORT + 2))
        ],
        "fragments": fragments,
        "behind options": behind_options,
    }


@pytest.mark.parametrize("version", [4, 6])
def test_a_plain_router_lets_most_of_them_out(lab: Network, version: int) -> None:
    """So what does not come out of the gateway was stopped by it."""
    ways = _everywhere(version) | (_ipv6() if version == 6 else _ipv4())
    with lab.net.hub.entered():
        forwarding = [Path("/proc/sys/net", name) for name in FORWARDING]
        for file in forwarding:
            file.write_text("1")
        try:
            assert len(_arrived(lab, ways, version)) > len(ways) / 2
        finally:
            for file in forwarding:
                file.write_text("0")


@pytest.mark.parametrize("version", [4, 6])
def test_no_forged_packet_comes_out(lab: Network, gateway: Gateway, version: int) -> None:
    six = version == 6
    ways = _everywhere(version) | (_ipv6() if six else _ipv4())
    assert _arrived(lab, ways, version) == []
    honest = _honest(version)
    assert _arrived(lab, honest, version) == list(honest)


def _arrived(lab: Network, ways: Ways, version: int) -> list[str]:
    """The names of the packets that the spoke sends and the internet sees."""
    six = version == 6
    src, dst = sites.SPOKE_NODE[six], sites.CONTOSO.addresses[six]
    lab.net.spoke.connect(dst, 1433).close()  # neighbours know each other
    mac = _mac(lab.net.hub, INSIDE)
    sent: list[Sent] = [Forged(Kind.UDP, src, dst, 0, make) for make in ways.values()]
    with closing(Wire(lab.net.spoke, mac, lab.net.internet)) as wire:
        arrived = wire.arrivals(sent, Sent(Kind.UDP, src, dst, ALLOWED))
    return [name for name, there in zip(ways, arrived, strict=True) if there]


@pytest.mark.parametrize("version", [4, 6])
def test_an_error_message_goes_to_whom_it_concerns_alone(
    lab: Network, gateway: Gateway, version: int
) -> None:
    six = version == 6
    spoke, there = sites.SPOKE_NODE[six], sites.CONTOSO.addresses[six]
    elsewhere, kind = sites.ELSEWHERE.addresses[six], (3, 1)[six]
    with lab.net.spoke.entered():
        flow = socket.socket((socket.AF_INET, socket.AF_INET6)[six], socket.SOCK_DGRAM)
    with flow:
        flow.settimeout(5)
        flow.connect((there, ALLOWED))
        flow.send(b"forwarded")
        assert flow.recv(9) == b"forwarded"
        port = flow.getsockname()[1]

        def error(dst: str, *, src: str = spoke, about: str = there) -> Make:
            def make(tag: bytes) -> list[bytes]:
                answer = udp(about, spoke, port, tag, sport=ALLOWED)
                quoted = ip(about, spoke, forged.UDP, answer)
                text = forged.icmp(src, dst, kind, 4 if six else 3, bytes(4) + quoted)
                return [ip(src, dst, forged.ICMPV6 if six else forged.ICMP, text)]

            return make

        ways: Ways = {
            "to another": error(elsewhere),
            "to another, from the server": error(elsewhere, src=there),
            "about another": error(there, about=elsewhere),
            "to whom it concerns": error(there),
        }
        assert _arrived(lab, ways, version) == ["to whom it concerns"]


def test_a_redirect_changes_no_route(lab: Network, gateway: Gateway) -> None:
    hub = lab.net.hub
    before = [_route(hub, address) for address in sites.CONTOSO.addresses]
    spoke4, spoke6 = sites.SPOKE_NODE
    there4, there6 = sites.CONTOSO.addresses
    hub4, hub6 = sites.HUB_OUTSIDE

    def redirect4(tag: bytes) -> list[bytes]:
        quoted = ip(hub4, there4, forged.UDP, udp(hub4, there4, 53, tag))
        text = forged.icmp(spoke4, hub4, 5, 1, socket.inet_aton(spoke4) + quoted)
        return [ip(sites.INTERNET_GATEWAY[0], hub4, forged.ICMP, text)]

    def redirect6(tag: bytes) -> list[bytes]:
        ends = (ip_address(spoke6).packed, ip_address(there6).packed)
        quoted = ip(hub6, there6, forged.UDP, udp(hub6, there6, 53, tag))
        text = forged.icmp("fe80::1", hub6, 137, 0, bytes(4) + b"".join(ends) + quoted)
        return [ip("fe80::1", hub6, forged.ICMPV6, text)]

    assert _arrived(lab, {"redirect": redirect4}, 4) == []
    assert _arrived(lab, {"redirect": redirect6}, 6) == []
    assert [_route(hub, address) for address in sites.CONTOSO.addresses] == before


def _route(hub: Namespace, address: str) -> str:
    return hub.run("ip", "route", "get", address)


@pytest.mark.parametrize("side", ["spoke", "internet"])
def test_nobody_reaches_the_gateways_own_ports(lab: Network, gateway: Gateway, side: str) -> None:
    here = lab.net.spoke if side == "spoke" else lab.net.internet
    doors = [
        Door(socket.SOCK_STREAM, address, port)
        for address in (*sites.HUB_INSIDE, *sites.HUB_OUTSIDE)
        for port in (DEFAULT_PROXY_PORT, 15002, 22, 443, 9901)
    ]
    with ExitStack() as stack, here.entered():
        knocks = [stack.enter_context(knock(door)) for door in doors]
        # There and back on the same way: the hub has heard all the others by then.
        if side == "spoke":
            ping(here, sites.HUB_INSIDE[0])
        else:
            lab.net.hub.connect(sites.CONTOSO.addresses[0], 1433).close()
        assert [_is_connected(each) for each in knocks] == len(doors) * [False]


def test_the_internet_begins_nothing(lab: Network, gateway: Gateway) -> None:
    """Neither to the spoke, nor through the gateway back to itself."""
    spoke, internet = lab.net.spoke, lab.net.internet
    for address in sites.SPOKE_NODE:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with spoke.entered():
            listener = socket.create_server((address, 1433), family=family)
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
        with listener, datagrams, internet.entered(), ExitStack() as stack:
            datagrams.bind((address, ALLOWED))
            stack.enter_context(knock(Door(socket.SOCK_DGRAM, address, ALLOWED)))
            sock = stack.enter_context(knock(Door(socket.SOCK_STREAM, address, 1433)))
            spoke.connect(sites.CONTOSO.addresses[0], 1433).close()
            assert not _is_connected(sock)
            datagrams.setblocking(False)
            with pytest.raises(BlockingIOError):
                datagrams.recv(9)


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
