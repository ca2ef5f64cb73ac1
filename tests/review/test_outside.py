"""Addresses that are nobody's own network, and what is no address."""

from __future__ import annotations

import pytest

from egressproxy.review.outside import is_outside

OUTSIDE = {
    "20.1.2.3": True,
    "10.0.0.1": False,
    "2603::1": True,
    "fe80::1%eth0": False,
    "fd00::1": False,
}
ODD = {
    "203.0.113.7": True,
    "100.64.0.1": False,
    "": False,
    "x": False,
    "\x00": False,
    None: False,
    "127.0.0.1": False,
}


@pytest.mark.parametrize(("text", "is_one"), (OUTSIDE | ODD).items())
def test_addresses_outside(text: str | None, is_one: bool) -> None:
    assert is_outside(text) is is_one
