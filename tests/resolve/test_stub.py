from __future__ import annotations

from typing import Any

import pycares
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import ServiceError
from egressproxy.names import DnsName
from egressproxy.resolve.cache import Failure
from egressproxy.resolve.stub import Family, Part, parse_server, read_records

NAME = DnsName("a.test")


def a(owner: str, address: str = "198.51.100.7", ttl: int = 60) -> pycares.DNSRecord:
    return record(owner, pycares.QUERY_TYPE_A, pycares.ARecordData(address), ttl)


def aaaa(owner: str, address: str = "2001:db8::7") -> pycares.DNSRecord:
    return record(owner, pycares.QUERY_TYPE_AAAA, pycares.AAAARecordData(address))


def cname(owner: str, target: str, ttl: int = 60) -> pycares.DNSRecord:
    return record(owner, pycares.QUERY_TYPE_CNAME, pycares.CNAMERecordData(target), ttl)


def record(owner: str, rtype: int, data: Any, ttl: int = 60, rclass: int = 1) -> pycares.DNSRecord:
    return pycares.DNSRecord(name=owner, type=rtype, record_class=rclass, ttl=ttl, data=data)


NOTHING = Part(error=Failure.NO_ADDRESS)
SEVEN = Part(("198.51.100.7",), 60)
ANSWERS = {
    "one": ([a("a.test")], SEVEN),
    "nothing": ([], NOTHING),
    "case and final dot": ([a("A.Test.")], SEVEN),
    "duplicates": ([a("a.test"), a("a.test")], SEVEN),
    "shortest ttl": ([a("a.test", ttl=9), a("a.test", "198.51.100.8")],
                     Part(("198.51.100.7", "198.51.100.8"), 9)),
    "somebody else's address": ([a("b.test")], NOTHING),
    "somebody else's beside ours": ([a("b.test", "198.51.100.99"), a("a.test")], SEVEN),
    "another family": ([aaaa("a.test")], NOTHING),
    "another class": (
        [record("a.test", 1, pycares.ARecordData("198.51.100.7"), rclass=3)], NOTHING),
    "a type that lies about its data": (
        [record("a.test", 1, pycares.TXTRecordData(b"198.51.100.7"))], NOTHING),
    "alias": ([cname("a.test", "b.test"), a("b.test")], SEVEN),
    "alias after its address": ([a("b.test"), cname("a.test", "b.test")], SEVEN),
    "alias with the shorter ttl": ([cname("a.test", "b.test", 3), a("b.test")],
                                   Part(("198.51.100.7",), 3)),
    "alias to nowhere": ([cname("a.test", "b.test")], NOTHING),
    "alias of somebody else": ([cname("b.test", "c.test"), a("c.test")], NOTHING),
    "alias to itself": ([cname("a.test", "a.test")], NOTHING),
    "a ring": ([cname("a.test", "b.test"), cname("b.test", "a.test")], NOTHING),
    "two aliases: the first": (
        [cname("a.test", "b.test"), cname("a.test", "c.test"), a("b.test"), a("c.test", "1.1.1.1")],
        SEVEN),
    "sixteen aliases": (
        [cname("a.test", "0.test"), *(cname(f"{n}.test", f"{n + 1}.test") for n in range(15)),
         a("15.test")], SEVEN),
    "too many aliases": (
        [cname("a.test", "0.test"), *(cname(f"{n}.test", f"{n + 1}.test") for n in range(16)),
         a("16.test")], NOTHING),
    "ttl with the top bit": ([a("a.test", ttl=2**32 - 1)], Part(("198.51.100.7",), 0)),
    "owner that is not ASCII": (
        [record(b"\xc3\xa4.test", 1, pycares.ARecordData("198.51.100.7"))],  # type: ignore[arg-type]
        NOTHING),
    "address after the bound": ([a("b.test")] * 512 + [a("a.test")], NOTHING),
}  # fmt: skip


@pytest.mark.parametrize(("records", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_read_records(records: list[pycares.DNSRecord], expected: Part) -> None:
    assert read_records(NAME, Family.IPV4, records) == expected


IPV6 = {
    "plain": ("2001:db8::7", "2001:db8::7"),
    "long form": ("2001:0db8:0000::0007", "2001:db8::7"),
    "mapped": ("::ffff:198.51.100.7", "198.51.100.7"),
    "mapped in hex": ("::ffff:c633:6407", "198.51.100.7"),
}


@pytest.mark.parametrize(("text", "canonical"), IPV6.values(), ids=IPV6)
def test_ipv6_text_is_canonical(text: str, canonical: str) -> None:
    assert read_records(NAME, Family.IPV6, [aaaa("a.test", text)]).addresses == (canonical,)


owners = st.sampled_from(["a.test", "b.test", "c.test", "d.test"])
records = st.one_of(
    st.builds(a, owners, st.ip_addresses(v=4).map(str), st.integers(0, 2**32 - 1)),
    st.builds(aaaa, owners, st.ip_addresses(v=6).map(str)),
    st.builds(cname, owners, owners),
)


@given(st.lists(records, max_size=60), st.sampled_from(Family))
def test_any_answer_is_addresses_or_a_failure(
    answer: list[pycares.DNSRecord], family: Family
) -> None:
    part = read_records(NAME, family, answer)
    assert bool(part.addresses) != bool(part.error)
    assert len(part.addresses) == len(set(part.addresses)) <= 32
    assert 0 <= part.ttl_s < 2**31


SERVERS = {
    "10.0.0.10": "10.0.0.10:53",
    "10.0.0.10:5353": "10.0.0.10:5353",
    "fd00::10": "[fd00::10]:53",
    "[fd00::10]": "[fd00::10]:53",
    "[fd00:0::10]:5353": "[fd00::10]:5353",
}


@pytest.mark.parametrize(("text", "expected"), SERVERS.items())
def test_parse_server(text: str, expected: str) -> None:
    assert parse_server(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "dns.example", "10.0.0.10:", "10.0.0.10:0", "10.0.0.10:65536", "10.0.0.10:5x", "[fd00::1",
     "[fd00::1]53", "10.0.0.10,10.0.0.11", "10.0.0.10:٥٣", "256.0.0.1", "[10.0.0.10]:x"],
)  # fmt: skip
def test_parse_server_refuses(text: str) -> None:
    with pytest.raises(ServiceError, match="is not a DNS server"):
        parse_server(text)
