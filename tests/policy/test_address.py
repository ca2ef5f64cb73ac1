from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy.address import pack_address


@given(st.ip_addresses())
def test_packs(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    mapped = getattr(address, "ipv4_mapped", None)
    assert pack_address(str(address)) == (mapped or address).packed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::ffff:1.2.3.4", b"\1\2\3\4"),
        ("fe80::1%eth0", b"\xfe\x80" + bytes(13) + b"\1"),
        ("::1.2.3.4", bytes(12) + b"\1\2\3\4"),
        *(
            (bad, None)
            for bad in ("", "1.2.3", "1.2.3.4.5", "0x7f.1", "a", "::g", "1\0", "\udc80", "1.2.3.4 ")
        ),
    ],
)
def test_shapes(text: str, expected: bytes | None) -> None:
    assert pack_address(text) == expected


@given(st.text())
def test_never_raises(text: str) -> None:
    packed = pack_address(text)
    assert packed is None or len(packed) in (4, 16)
