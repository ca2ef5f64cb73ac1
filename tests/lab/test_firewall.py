"""What the kernel forwards for a spoke whose only way out is the hub, and what it says it did not.

A denied attempt is not waited for: its record is, and then it is not open.
"""

from __future__ import annotations

import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import dns.message
import dns.query
import pytest

from lab import ntp, sites
from lab.gateway import ADMIN_PORT
from lab.programs import client
from tests.lab.attempts import attempt, counts, datagrams, echoes, is_open, port_of

if TYPE_CHECKING:
    from lab.gateway import Gateway

pytestmark = pytest.mark.netns

FAMILY: Final = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
SQL: Final = sites.SQL.addresses
CONTOSO: Final = sites.CONTOSO.addresses
MONITOR: Final = "lab.ods.opinsights.azure.com"


def _refused(gateway: Gateway, skip: int, local: socket.socket, **fields: Any) -> dict[str, Any]:
    """The kernel's record of what a socket tried; it has to have these fields."""
    record = gateway.record(skip=skip, plane="network", src_port=port_of(local))
    wanted = {"action": "deny", "reason": "default_deny", "rule": None, **fields}
    assert {name: record[name] for name in wanted} == wanted
    return record


def _tcp_is_refused(
    gateway: Gateway, address: str, port: int, *, source: str = "", **fields: Any
) -> dict[str, Any]:
    mark = gateway.records.mark()
    with attempt(gateway.lab.net.spoke, address, port, source=source) as trying:
        record = _refused(gateway, mark, trying, protocol="tcp", **fields)
        assert (record["dst_ip"], record["dst_port"]) == (address, port)
        assert not is_open(trying)
    return record


def _udp_is_refused(gateway: Gateway, address: str, port: int, **fields: Any) -> dict[str, Any]:
    mark = gateway.records.mark()
    with datagrams(gateway.lab.net.spoke, address, port) as asking:
        asking.send(b"anybody?")
        record = _refused(gateway, mark, asking, protocol="udp", **fields)
        assert (record["dst_ip"], record["dst_port"]) == (address, port)
    return record


@FAMILY
@pytest.mark.parametrize("port", [1433, 11000])
def test_a_tag_opens_its_addresses_and_ports(firewall: Gateway, family: int, port: int) -> None:
    mark, before = firewall.records.mark(), counts(firewall)
    with firewall.lab.net.spoke.connect(SQL[family], port) as connection:
        assert echoes(connection, b"SELECT 1")
    assert counts(firewall).since(before).rules == {"rules/sql": 1}
    assert firewall.records.mark() == mark, "the kernel's allows have no records"


@FAMILY
@pytest.mark.parametrize("port", [22, 3389, 10999, 65535])
def test_ports_beside_the_rule_stay_shut(firewall: Gateway, family: int, port: int) -> None:
    _tcp_is_refused(firewall, SQL[family], port, src_ip=sites.SPOKE_NODE[family])


@FAMILY
def test_a_deny_rule_before_the_allow_decides(firewall: Gateway, family: int) -> None:
    _tcp_is_refused(firewall, SQL[family], 11019, reason="rule", rule="rules/no-dac")


@FAMILY
def test_addresses_beside_the_tag_stay_shut(firewall: Gateway, family: int) -> None:
    _tcp_is_refused(firewall, CONTOSO[family], 1433)


@FAMILY
def test_sources_are_told_apart_by_the_kernel(firewall: Gateway, family: int) -> None:
    second = sites.SPOKE_SECOND[family]
    with firewall.lab.net.spoke.connect(SQL[family], 12000, source=second) as connection:
        assert echoes(connection, b"from the second node")
    _tcp_is_refused(firewall, SQL[family], 12000)


@FAMILY
def test_udp_by_address(firewall: Gateway, family: int) -> None:
    with datagrams(firewall.lab.net.spoke, CONTOSO[family], 1194) as sending:
        sending.send(b"there and back")
        assert sending.recv(100) == b"there and back"
    _udp_is_refused(firewall, CONTOSO[family], 123)
    _udp_is_refused(firewall, SQL[family], 1194)


def test_time_by_name(firewall: Gateway) -> None:
    """The name is asked for through the hub, too; both families answer."""
    lab = firewall.lab
    seen = lab.events.mark()
    done = client(lab.net.spoke, sys.executable, "-m", "lab.ntp", "ntp.ubuntu.com")
    assert done.code == 0, done.text
    for family, address in enumerate(sites.TIME.addresses):
        assert f"{address}: stratum {ntp.STRATUM}" in done.stdout
        wanted = {"event": "ntp", "peer": sites.HUB_OUTSIDE[family]}
        lab.events.wait(partial(_has, wanted), skip=seen)


def _has(wanted: dict[str, Any], event: dict[str, Any]) -> bool:
    return wanted.items() <= event.items()


@FAMILY
def test_time_of_others_is_refused(firewall: Gateway, family: int) -> None:
    _udp_is_refused(firewall, SQL[family], ntp.PORT)
    _tcp_is_refused(firewall, sites.TIME.addresses[family], ntp.PORT, name="ntp.ubuntu.com")


@FAMILY
@pytest.mark.parametrize("ask", [dns.query.udp, dns.query.tcp], ids=["udp", "tcp"])
def test_custom_dns(firewall: Gateway, family: int, ask: Any) -> None:
    """Private, so its server sees the spoke's own address."""
    lab = firewall.lab
    seen = lab.events.mark()
    name = f"{ask.__name__}{family}.contoso.example"
    question = dns.message.make_query(name, "A")
    with lab.net.spoke.entered():
        answer = ask(question, sites.DNS_SERVER[family], timeout=5)
    assert answer.answer[0][0].to_text() == CONTOSO[0]
    wanted = {"event": "dns", "name": name, "peer": sites.SPOKE_NODE[family]}
    lab.events.wait(partial(_has, wanted), skip=seen)


@FAMILY
def test_other_dns_servers_are_refused(firewall: Gateway, family: int) -> None:
    _udp_is_refused(firewall, SQL[family], 53)
    _tcp_is_refused(firewall, SQL[family], 53)


@FAMILY
def test_public_servers_see_the_hub(firewall: Gateway, family: int) -> None:
    """Masquerade: without it the internet's answers would never come back to Azure."""
    net = firewall.lab.net
    with datagrams(net.spoke, CONTOSO[family], 5000) as sending, _server(firewall, family) as at:
        sending.send(b"who am I")
        data, peer = at.recvfrom(100)
        assert (data, peer[0]) == (b"who am I", sites.HUB_OUTSIDE[family])
        at.sendto(b"the hub", peer)
        assert sending.recv(100) == b"the hub"


def _server(gateway: Gateway, family: int) -> socket.socket:
    """A UDP server on a port that a rule opens and nobody listens on."""
    with gateway.lab.net.internet.entered():
        at = socket.socket((socket.AF_INET, socket.AF_INET6)[family], socket.SOCK_DGRAM)
    at.settimeout(5)
    at.bind((CONTOSO[family], 5000))
    return at


@FAMILY
def test_quic_is_refused_at_once(firewall: Gateway, family: int) -> None:
    """ICMP port unreachable: a client that waits would fall back to TCP after a second or more."""
    mark = firewall.records.mark()
    with datagrams(firewall.lab.net.spoke, CONTOSO[family], 443) as asking:
        asking.send(b"\xc0 Initial")
        with pytest.raises(ConnectionRefusedError):
            asking.recv(100)
        _refused(firewall, mark, asking, protocol="udp", reason="quic_refused", dst_port=443)


@FAMILY
def test_a_servers_own_refusals_arrive(firewall: Gateway, family: int) -> None:
    """RST, and an ICMP error that NAT gives back to its client."""
    spoke = firewall.lab.net.spoke
    with pytest.raises(ConnectionRefusedError):
        spoke.connect(CONTOSO[family], 9001)
    with datagrams(spoke, CONTOSO[family], 5000) as asking:
        asking.send(b"nobody listens")
        with pytest.raises(ConnectionRefusedError):
            asking.recv(100)


@pytest.mark.parametrize(
    ("family", "protocol", "request_"),
    [
        (0, "icmp", bytes.fromhex("0800b0ed47110001")),
        (1, "icmpv6", bytes.fromhex("8000000047110001")),
    ],
    ids=["ipv4", "ipv6"],
)
def test_ping_is_no_rule(firewall: Gateway, family: int, protocol: str, request_: bytes) -> None:
    mark = firewall.records.mark()
    number = (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)[family]
    with firewall.lab.net.spoke.entered():
        pinging = socket.socket((socket.AF_INET, socket.AF_INET6)[family], socket.SOCK_RAW, number)
    with pinging:
        pinging.sendto(request_, (CONTOSO[family], 0))
    record = firewall.record(skip=mark, protocol=protocol)
    assert (record["action"], record["reason"]) == ("deny", "default_deny")
    assert (record["src_ip"], record["dst_ip"]) == (sites.SPOKE_NODE[family], CONTOSO[family])


@FAMILY
def test_a_denied_address_has_its_name_and_the_catalogs_note(
    firewall: Gateway, family: int
) -> None:
    record = _tcp_is_refused(firewall, sites.ELSEWHERE.addresses[family], 9000)
    assert (record["name"], record["name_source"]) == (MONITOR, "dns")
    assert record["note"] == "needed-by: aks/defender, aks/azure-monitor"


def test_a_name_opens_no_private_address_and_a_missing_one_nothing(firewall: Gateway) -> None:
    sizes = counts(firewall).sets
    assert sizes[MONITOR] == 2
    assert sizes["private.contoso.example"] == 0
    assert sizes["a.invalid"] == 0
    assert firewall.metric("egressproxy_name_refused_addresses_total") > 0
    assert firewall.metric("egressproxy_unresolved_names") == 1
    _tcp_is_refused(firewall, "10.50.0.4", 1433, reason="forbidden_address", rule="rules/inner")


@FAMILY
def test_audit_forwards_and_says_what_it_would_deny(firewall: Gateway, family: int) -> None:
    audit = "mode: audit\naudit_until: 2099-12-31\n"
    if not firewall.policy_file.read_text().endswith(audit):
        firewall.apply_policy(firewall.policy_file.read_text() + audit)
    mark = firewall.records.mark()
    with firewall.lab.net.spoke.connect(SQL[family], 3389) as connection:
        assert echoes(connection, b"would be denied")
        _refused(firewall, mark, connection, action="allow", would_deny=True, dst_port=3389)


@FAMILY
def test_application_ports_go_to_the_proxy(firewall: Gateway, family: int) -> None:
    """To any address: what is asked there is judged by name, not here."""
    before = counts(firewall)
    mark = firewall.records.mark()
    with firewall.lab.net.spoke.connect(SQL[family], 80) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 403 ")
    assert firewall.record(skip=mark, name="example.com")["plane"] == "transparent"
    assert counts(firewall).since(before).outcomes["proxied"] == 1


@FAMILY
@pytest.mark.parametrize("port", [22, 15001, ADMIN_PORT])
def test_what_the_hub_refuses_is_recorded(firewall: Gateway, family: int, port: int) -> None:
    """Also the port that application flows are redirected to, when it is asked for by itself."""
    mark = firewall.records.mark()
    with attempt(firewall.lab.net.spoke, sites.HUB_INSIDE[family], port) as trying:
        _refused(firewall, mark, trying, reason="loop", dst_port=port)
        assert not is_open(trying)
