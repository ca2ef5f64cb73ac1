import pytest

from bench.hello import client_hello, post_quantum_hello
from egressproxy.wire.client_hello import ClientHello, HelloReader, parse_client_hello

NAME = "myregistry.japaneast.data.azurecr.io"
SEGMENT = 1448
"""Octets of a TCP segment with timestamps on a link of 1500 (RFC 6691, RFC 7323)."""
X25519MLKEM768 = bytes.fromhex("11ec")


def parsed(hello: bytes) -> ClientHello:
    found = parse_client_hello(hello)
    assert found is not None
    return found


def test_openssl_pads_its_hello_to_517_octets() -> None:
    assert len(client_hello(NAME)) == 517


def test_the_post_quantum_hello_needs_two_segments() -> None:
    assert SEGMENT < len(post_quantum_hello(NAME)) <= 2 * SEGMENT


def test_it_says_what_the_plain_one_says() -> None:
    plain, post_quantum = (parsed(make(NAME)) for make in MAKERS)
    assert post_quantum.fault is None
    assert post_quantum.name == plain.name == NAME
    assert (post_quantum.alpn, post_quantum.versions) == (plain.alpn, plain.versions)


def test_its_first_segment_alone_is_not_enough() -> None:
    hello, reader = post_quantum_hello(NAME), HelloReader()
    assert reader.feed(hello[:SEGMENT]) is None
    found = reader.feed(hello[SEGMENT:])
    assert found is not None
    assert found.name == NAME


def test_the_key_share_comes_first_and_is_well_formed() -> None:
    hello = post_quantum_hello(NAME)
    at = hello.index(X25519MLKEM768 + (1216).to_bytes(2))
    key = hello[at + 4 : at + 4 + 1184]
    bits = int.from_bytes(key[:1152], "little")
    assert max((bits >> 12 * n) & 0xFFF for n in range(768)) < 3329  # FIPS 203, 7.2


@pytest.mark.parametrize("name", ["a.io", "x" * 63 + ".example.com"])
def test_lengths_follow_the_name(name: str) -> None:
    for make in MAKERS:
        hello = make(name)
        assert int.from_bytes(hello[3:5]) == len(hello) - 5
        assert int.from_bytes(hello[6:9]) == len(hello) - 9
        assert parsed(hello).name == name


MAKERS = (client_hello, post_quantum_hello)
