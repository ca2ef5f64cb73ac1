"""ClientHello parsing: outcomes by table, any split, and OpenSSL as the second reader."""

from __future__ import annotations

import ssl
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import WireError
from egressproxy.wire.client_hello import (
    ClientHello,
    HelloReader,
    parse_client_hello,
)
from egressproxy.wire.fault import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAME = b"mcr.microsoft.com"


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def extension(kind: int, data: bytes) -> bytes:
    return u16(kind) + u16(len(data)) + data


def name_entry(name: bytes, kind: int = 0) -> bytes:
    return bytes((kind,)) + u16(len(name)) + name


def server_name(*entries: bytes) -> bytes:
    joined = b"".join(entries)
    return extension(0, u16(len(joined)) + joined)


def alpn(*protocols: bytes) -> bytes:
    joined = b"".join(bytes((len(each),)) + each for each in protocols)
    return extension(16, u16(len(joined)) + joined)


SNI = server_name(name_entry(NAME))
VERSIONS = extension(43, b"\x04\x03\x04\x03\x03")


def message(
    *extensions: bytes,
    version: bytes = b"\x03\x03",
    session: bytes = b"",
    suites: bytes = b"\x13\x01",
    compressions: bytes = b"\x00",
    extension_block: bytes | None = None,
) -> bytes:
    joined = b"".join(extensions)
    block = u16(len(joined)) + joined if extension_block is None else extension_block
    body = version + b"R" * 32 + bytes((len(session),)) + session
    body += u16(len(suites)) + suites + bytes((len(compressions),)) + compressions + block
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(handshake: bytes, sizes: Iterable[int] = (), version: bytes = b"\x03\x01") -> bytes:
    out, at = b"", 0
    for size in [*sizes, len(handshake)]:
        part = handshake[at : at + size]
        at += len(part)
        if part:
            out += b"\x16" + version + u16(len(part)) + part
    return out


def hello(*extensions: bytes) -> bytes:
    return records(message(*extensions))


def outcome(data: bytes, limit: int = 65536) -> ClientHello | str | None:
    try:
        return parse_client_hello(data, limit)
    except WireError as error:
        return error.code


def outcome_in_parts(parts: Iterable[bytes], limit: int = 65536) -> ClientHello | str | None:
    reader = HelloReader(limit)
    try:
        for part in parts:
            found = reader.feed(part)
            if found is not None:
                return found
    except WireError as error:
        return error.code
    return None


def openssl_hello(
    name: str | None,
    *,
    protocols: Sequence[str] = (),
    lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version, context.maximum_version = lowest, highest
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def openssl_reads(data: bytes) -> tuple[bool, str | None]:
    """Whether OpenSSL got as far as its SNI callback, and the name it was given."""
    seen: list[str | None] = []

    def note(_socket: ssl.SSLObject, name: str, _context: ssl.SSLContext) -> int:
        seen.append(name)
        return ssl.ALERT_DESCRIPTION_ACCESS_DENIED

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = note
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    server = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    with pytest.raises(ssl.SSLError):
        server.do_handshake()
    return bool(seen), seen[0] if seen else None


ACCEPTED = {
    "name, TLS 1.3": (hello(SNI, VERSIONS), NAME.decode(), None, ("1.3", "1.2")),
    "name, TLS 1.2 by legacy version": (hello(SNI), NAME.decode(), None, ("1.2",)),
    "TLS 1.0": (
        records(message(SNI, version=b"\x03\x01")),
        NAME.decode(),
        None,
        ("1.0",),
    ),
    "SSL 3.0": (
        records(message(SNI, version=b"\x03\x00"), version=b"\x03\x00"),
        NAME.decode(),
        None,
        ("ssl3",),
    ),
    "upper case and a trailing dot": (
        hello(server_name(name_entry(b"MCR.Microsoft.COM."))),
        NAME.decode(),
        None,
        ("1.2",),
    ),
    "session id of 32 octets": (
        records(message(SNI, session=b"s" * 32)),
        NAME.decode(),
        None,
        ("1.2",),
    ),
    "no SNI": (hello(VERSIONS), None, Fault.NO_SNI, ("1.3", "1.2")),
    "no extensions at all": (
        records(message(extension_block=b"")),
        None,
        Fault.NO_SNI,
        ("1.2",),
    ),
    "an empty extension block": (hello(), None, Fault.NO_SNI, ("1.2",)),
    "IPv4 as name": (hello(server_name(name_entry(b"20.1.2.3"))), None, Fault.IP_LITERAL, ("1.2",)),
    "IPv6 as name": (hello(server_name(name_entry(b"::1"))), None, Fault.IP_LITERAL, ("1.2",)),
    "GREASE versions are left out": (
        hello(SNI, extension(43, b"\x06\x0a\x0a\x03\x04\x7f\x1c")),
        NAME.decode(),
        None,
        ("1.3",),
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str) -> None:
    data, name, fault, versions = ACCEPTED[case]
    found = parse_client_hello(data)
    assert found is not None
    assert (found.name, found.fault, found.versions) == (name, fault, versions)
    assert found.size == len(data)


REFUSED = {
    "plain HTTP": (b"GET / HTTP/1.1\r\n", Fault.NOT_TLS_OR_HTTP),
    "SSLv2 hello": (b"\x80\x2e\x01\x03\x01\x00\x15", Fault.NOT_TLS_OR_HTTP),
    "an alert record first": (b"\x15\x03\x01\x00\x02\x02\x00", Fault.NOT_TLS_OR_HTTP),
    "record version 2": (b"\x16\x02\x00\x00\x10" + b"x" * 16, Fault.MALFORMED_HELLO),
    "an empty record": (b"\x16\x03\x01\x00\x00" + hello(SNI), Fault.MALFORMED_HELLO),
    "a record above 16 KiB": (b"\x16\x03\x01\x40\x01\x01", Fault.MALFORMED_HELLO),
    "ServerHello instead": (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", Fault.MALFORMED_HELLO),
    "client version 2": (records(message(SNI, version=b"\x02\x00")), Fault.MALFORMED_HELLO),
    "session id of 33 octets": (
        records(message(SNI, session=b"s" * 33)),
        Fault.MALFORMED_HELLO,
    ),
    "no cipher suites": (records(message(SNI, suites=b"")), Fault.MALFORMED_HELLO),
    "half a cipher suite": (records(message(SNI, suites=b"\x13\x01\x00")), Fault.MALFORMED_HELLO),
    "no compression methods": (records(message(SNI, compressions=b"")), Fault.MALFORMED_HELLO),
    "hello of nothing": (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", Fault.MALFORMED_HELLO),
    "hello cut inside the random": (
        b"\x16\x03\x01\x00\x0a\x01\x00\x00\x06\x03\x03RRRR",
        Fault.MALFORMED_HELLO,
    ),
    "an extension block longer than the hello": (
        records(message(extension_block=u16(900) + SNI)),
        Fault.MALFORMED_HELLO,
    ),
    "bytes after the extension block": (
        records(message(extension_block=u16(len(SNI)) + SNI + b"x")),
        Fault.MALFORMED_HELLO,
    ),
    "an extension that runs past the block": (
        hello(u16(5) + u16(40) + b"short"),
        Fault.MALFORMED_HELLO,
    ),
    "half an extension header": (hello(SNI, b"\x00\x05"), Fault.MALFORMED_HELLO),
    "server_name twice": (hello(SNI, SNI), Fault.MALFORMED_HELLO),
    "an unknown extension twice": (
        hello(SNI, extension(9999, b""), extension(9999, b"")),
        Fault.MALFORMED_HELLO,
    ),
    "two names in one list": (
        hello(server_name(name_entry(NAME), name_entry(b"evil.example"))),
        Fault.MALFORMED_HELLO,
    ),
    "a second name of another type": (
        hello(server_name(name_entry(NAME), name_entry(b"x", kind=1))),
        Fault.MALFORMED_HELLO,
    ),
    "a name type other than host": (
        hello(server_name(name_entry(NAME, kind=7))),
        Fault.MALFORMED_HELLO,
    ),
    "an empty server_name extension": (hello(extension(0, b"")), Fault.MALFORMED_HELLO),
    "an empty name list": (hello(extension(0, b"\x00\x00")), Fault.MALFORMED_HELLO),
    "an empty name": (hello(server_name(name_entry(b""))), Fault.MALFORMED_HELLO),
    "a name list longer than its extension": (
        hello(extension(0, u16(90) + name_entry(NAME))),
        Fault.MALFORMED_HELLO,
    ),
    "a name longer than its list": (
        hello(extension(0, u16(6) + b"\x00" + u16(90) + b"abc")),
        Fault.MALFORMED_HELLO,
    ),
    "a NUL in the name": (
        hello(server_name(name_entry(b"mcr.microsoft.com\0.evil.example"))),
        Fault.MALFORMED_HELLO,
    ),
    "a space in the name": (hello(server_name(name_entry(b"a b.example"))), Fault.MALFORMED_HELLO),
    "bytes outside ASCII": (
        hello(server_name(name_entry("bücher.example".encode()))),
        Fault.MALFORMED_HELLO,
    ),
    "a name of 300 octets": (
        hello(server_name(name_entry(b"a." * 150 + b"example"))),
        Fault.MALFORMED_HELLO,
    ),
    "an empty ALPN list": (hello(SNI, extension(16, b"\x00\x00")), Fault.MALFORMED_HELLO),
    "an empty ALPN protocol": (hello(SNI, alpn(b"h2", b"")), Fault.MALFORMED_HELLO),
    "an ALPN protocol past its list": (
        hello(SNI, extension(16, b"\x00\x03\x09h2")),
        Fault.MALFORMED_HELLO,
    ),
    "an ALPN list of a wrong size": (
        hello(SNI, extension(16, b"\x00\x09\x02h2")),
        Fault.MALFORMED_HELLO,
    ),
    "an empty supported_versions": (hello(SNI, extension(43, b"\x00")), Fault.MALFORMED_HELLO),
    "supported_versions without a byte": (hello(SNI, extension(43, b"")), Fault.MALFORMED_HELLO),
    "half a version": (hello(SNI, extension(43, b"\x03\x03\x04\x03")), Fault.MALFORMED_HELLO),
    "a second message in the record": (
        records(message(SNI) + b"\x01\x00\x00\x00"),
        Fault.MALFORMED_HELLO,
    ),
    "another record type inside the hello": (
        records(message(SNI), [9])[:14] + b"\x14\x03\x01\x00\x01\x01",
        Fault.MALFORMED_HELLO,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    data, fault = REFUSED[case]
    assert outcome(data) == fault
    assert outcome_in_parts(data[at : at + 1] for at in range(len(data))) == fault


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_records_of_any_size_make_one_hello(size: int) -> None:
    whole = message(SNI, VERSIONS, alpn(b"konnectivity", b"h2"))
    data = records(whole, [size] * (len(whole) // size))
    found = parse_client_hello(data)
    assert found is not None
    assert (found.name, found.alpn) == (NAME.decode(), ("konnectivity", "h2"))
    assert found.size == len(data)
    assert found.records == -(-len(whole) // size)
    assert found.fits_one_segment


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("length", [1199, 1200, 1201, 1800])
def test_what_one_segment_holds_is_asked_of_the_hello_in_one_record(
    length: int, count: int
) -> None:
    empty = len(hello(SNI, extension(21, b"")))
    whole = message(SNI, extension(21, bytes(length - empty)))
    found = parse_client_hello(records(whole, [30] * (count - 1)))
    assert found is not None
    assert found.records == count
    assert found.fits_one_segment is (length <= 1200)


def test_bytes_after_the_last_record_are_not_looked_at() -> None:
    data = hello(SNI)
    found = parse_client_hello(data + b"\x17\x03\x03\x00\x05early")
    assert found is not None
    assert found.size == len(data)


@pytest.mark.parametrize("kind", [0xFE0D, 0xFFCE, 0xFE08, 0xFE0A, 0xFF02])
def test_ech_and_its_grease_are_reported(kind: int) -> None:
    found = parse_client_hello(hello(SNI, extension(kind, b"\x00" * 40)))
    assert found is not None
    assert found.has_ech


def test_alpn_outside_ascii_is_escaped() -> None:
    found = parse_client_hello(hello(SNI, alpn(b"\xffh2")))
    assert found is not None
    assert found.alpn == ("\\xffh2",)


def test_values_too_long_for_a_memo_are_read_as_well() -> None:
    protocols = [bytes((65 + n,)) * 100 for n in range(5)]
    versions = extension(43, bytes((254,)) + b"\x0a\x0a" * 126 + b"\x03\x04")
    found = parse_client_hello(hello(SNI, versions, alpn(*protocols)))
    assert found is not None
    assert found.alpn == tuple(each.decode() for each in protocols)
    assert found.versions == ("1.3",)


SIZES = {
    "one record at the limit": (0, None, True),
    "one octet above": (-1, None, False),
    "split, at the limit": (0, 700, True),
    "split, one octet above": (-1, 700, False),
}


@pytest.mark.parametrize("case", SIZES)
def test_limit(case: str) -> None:
    spare, split, accepted = SIZES[case]
    data = records(message(SNI, extension(21, b"\0" * 1500)), [split] if split else [])
    limit = len(data) + spare
    whole, parts = outcome(data, limit), outcome_in_parts([data[:9], data[9:]], limit)
    assert whole == parts
    assert isinstance(whole, ClientHello) if accepted else whole == Fault.HELLO_TOO_LARGE


def test_an_announced_length_above_the_limit_is_refused_at_once() -> None:
    assert outcome(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03") == Fault.HELLO_TOO_LARGE


def test_a_hello_of_64_kib_in_small_records_is_read_once() -> None:
    big = message(SNI, extension(21, b"\0" * 50_000))
    data = records(big, [1000] * 60)
    assert isinstance(outcome(data), ClientHello)
    assert isinstance(outcome_in_parts(data[at : at + 7] for at in range(0, len(data), 7)), tuple)


@pytest.mark.parametrize("length", range(9))
def test_need_more(length: int) -> None:
    assert outcome(hello(SNI)[:length]) is None


def test_raw_is_what_was_fed() -> None:
    data = hello(SNI) + b"early"
    reader = HelloReader()
    for part in (data[:3], data[3:8], data[8:]):
        reader.feed(part)
    assert bytes(reader.raw) == data


cuts = st.lists(st.integers(0, 700), max_size=12).map(sorted)
fragments = st.lists(st.integers(1, 200), max_size=20)
pieces = st.one_of(
    st.just(SNI),
    st.just(VERSIONS),
    st.just(alpn(b"h2", b"http/1.1")),
    st.binary(max_size=40).map(lambda data: extension(0, data)),
    st.tuples(st.integers(0, 65535), st.binary(max_size=60)).map(lambda pair: extension(*pair)),
)


@given(st.lists(pieces, max_size=6), fragments, cuts, st.integers(0, 700))
def test_any_split_is_the_whole(
    extensions: list[bytes], sizes: list[int], at: list[int], length: int
) -> None:
    data = records(message(*extensions), sizes)[: length or None]
    parts = [data[a:b] for a, b in pairwise([0, *at, max([len(data), *at])])]
    assert outcome_in_parts(parts) == outcome(data)


@given(st.binary(max_size=300), st.integers(0, 300))
def test_a_valid_prefix_and_garbage_raise_only_wire_errors(garbage: bytes, keep: int) -> None:
    outcome(hello(SNI, VERSIONS)[:keep] + garbage, limit=1000)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # ssl, not ASCII
@given(st.data())
def test_openssl_never_reads_another_name(data: st.DataObject) -> None:
    mutated = bytearray(hello(SNI, VERSIONS, alpn(b"h2")))
    for _ in range(data.draw(st.integers(0, 3))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    ours = outcome(bytes(mutated))
    reached, name = openssl_reads(bytes(mutated))
    if isinstance(ours, ClientHello) and reached and ours.fault is None:
        assert name is not None
        assert name.lower().rstrip(".") == ours.name
    if isinstance(ours, ClientHello) and reached and ours.fault is Fault.NO_SNI:
        assert name is None


CLIENTS = {
    "TLS 1.3 with ALPN": (
        "a.hcp.japaneast.azmk8s.io",
        ("konnectivity", "h2"),
        ssl.TLSVersion.TLSv1_2,
        ssl.TLSVersion.TLSv1_3,
        ("1.3", "1.2"),
    ),
    "TLS 1.2 only": (
        "mcr.microsoft.com",
        (),
        ssl.TLSVersion.TLSv1_2,
        ssl.TLSVersion.TLSv1_2,
        ("1.2",),
    ),
    "TLS 1.3 only": (
        "mcr.microsoft.com",
        ("h2",),
        ssl.TLSVersion.TLSv1_3,
        ssl.TLSVersion.TLSv1_3,
        ("1.3",),
    ),
    "no name": (None, (), ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3, ("1.3", "1.2")),
}


@pytest.mark.parametrize("case", CLIENTS)
def test_openssl_writes_and_both_read_the_same(case: str) -> None:
    name, protocols, lowest, highest, versions = CLIENTS[case]
    data = openssl_hello(name, protocols=protocols, lowest=lowest, highest=highest)
    found = parse_client_hello(data)
    assert found is not None
    assert (found.name, found.alpn, found.versions) == (name, protocols, versions)
    assert openssl_reads(data) == (True, name)
