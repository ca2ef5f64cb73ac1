"""DnsName: what is a host name, in which form, and what is not."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import InvalidNameError
from egressproxy.names import DnsName, is_ip_literal

ACCEPTED: dict[str, tuple[str | bytes, str]] = {
    "plain": ("mcr.microsoft.com", "mcr.microsoft.com"),
    "upper case": ("MCR.Microsoft.COM", "mcr.microsoft.com"),
    "trailing dot": ("mcr.microsoft.com.", "mcr.microsoft.com"),
    "single label": ("kubernetes", "kubernetes"),
    "underscore first": ("_dmarc.example.com", "_dmarc.example.com"),
    "underscore inside": ("my_account.blob.core.windows.net", "my_account.blob.core.windows.net"),
    "hyphens in places three and four": ("r3---sn-x.example", "r3---sn-x.example"),
    "digits first": ("1password.example", "1password.example"),
    "an umlaut": ("bücher.example", "xn--bcher-kva.example"),
    "an upper-case umlaut": ("BÜCHER.example", "xn--bcher-kva.example"),
    "a homoglyph is an A-label": ("\u0430pple.com", "xn--pple-43d.com"),
    "ideographic full stop": ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
    "an A-label": ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    "label of 63": ("a" * 63 + ".example", "a" * 63 + ".example"),
    "name of 253": ("a." * 126 + "a", "a." * 126 + "a"),
    "ASCII bytes": (b"Example.com", "example.com"),
}

REFUSED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "invalid_name"),
    "only a dot": (".", "invalid_name"),
    "leading dot": (".example.com", "invalid_name"),
    "two dots": ("a..example", "invalid_name"),
    "two trailing dots": ("example.com..", "invalid_name"),
    "label of 64": ("a" * 64 + ".example", "invalid_name"),
    "name of 255": ("a." * 127 + "a", "invalid_name"),
    "a million characters": ("a" * 1_000_000, "invalid_name"),
    "space": ("a b.example", "invalid_name"),
    "NUL": ("a\0.example", "invalid_name"),
    "newline at the end": ("example.com\n", "invalid_name"),
    "wildcard": ("*.example.com", "invalid_name"),
    "port": ("example.com:443", "invalid_name"),
    "userinfo": ("a@example.com", "invalid_name"),
    "slash": ("example.com/x", "invalid_name"),
    "hyphen first": ("-a.example", "invalid_name"),
    "hyphen last": ("a-.example", "invalid_name"),
    "bytes outside ASCII": ("bücher.example".encode(), "invalid_name"),
    "bidi override": ("a\u202eb.example", "invalid_name"),
    "a number and a dot in one character": ("\u2492.example", "invalid_name"),
    "A-label of nothing": ("xn--.example", "invalid_name"),
    "A-label that is no punycode": ("xn--\u00e9.example", "invalid_name"),
    "A-label out of range": ("xn--99999999999.example", "invalid_name"),
    "fake A-label of ASCII": ("xn--google-.example", "invalid_name"),
    "IPv4": ("20.1.2.3", "ip_literal"),
    "IPv4 with a dot": ("20.1.2.3.", "ip_literal"),
    "IPv6": ("::1", "ip_literal"),
    "IPv6 in brackets": ("[2001:db8::1]", "ip_literal"),
    "IPv6 with a zone": ("fe80::1%eth0", "ip_literal"),
    "ends in a number": ("a.example.5", "ip_literal"),
    "one decimal number": ("3232235777", "ip_literal"),
    "hexadecimal": ("0x7f000001", "ip_literal"),
    "short IPv4": ("127.1", "ip_literal"),
    "ends in a bare 0x": ("a.0x", "ip_literal"),
    "full-width IPv4": ("\uff11.2.3.4", "ip_literal"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str) -> None:
    text, normal = ACCEPTED[case]
    assert DnsName(text) == normal


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    text, code = REFUSED[case]
    with pytest.raises(InvalidNameError) as caught:
        DnsName(text)
    assert caught.value.code == code


def test_a_name_is_not_read_twice() -> None:
    name = DnsName("a.example")
    assert DnsName(name) is name
    assert name.labels == ("a", "example")


@given(st.one_of(st.text(max_size=80), st.binary(max_size=80)))
def test_anything_is_a_normal_form_or_an_invalid_name(text: str | bytes) -> None:
    try:
        name = DnsName(text)
    except InvalidNameError:
        return
    assert DnsName(str(name)) == name
    assert name.isascii()
    assert name == name.lower()
    assert not is_ip_literal(name)


@given(st.ip_addresses())
def test_no_address_is_a_name(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    with pytest.raises(InvalidNameError) as caught:
        DnsName(str(address))
    assert caught.value.code == "ip_literal"
