"""Rules and routes as the kernel lists them, from any bytes; a real kernel is in test_routing."""

from __future__ import annotations

import socket
import struct
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import KernelError
from egressproxy.kernel.netlink import attribute
from egressproxy.kernel.rtnetlink import ListedRoute, ListedRule, Rule, RuleAction

RULES: Final = {
    "by interface": Rule(100, RuleAction.GOTO, iif="lo", goto=104),
    "by mark": Rule(101, RuleAction.LOOKUP, fwmark=0x4000000, table=10101),
    "that blocks": Rule(103, RuleAction.BLACKHOLE),
    "that does nothing": Rule(104, RuleAction.NOP),
}


@pytest.mark.parametrize("case", RULES)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_rule_that_is_added_is_known_again(case: str, family: int) -> None:
    listed = ListedRule(RULES[case].payload(family))
    assert listed.rule == RULES[case]
    assert listed.is_ours
    assert listed.family == family


def test_a_mark_under_another_mask_is_not_ours() -> None:
    payload = RULES["by mark"].payload(socket.AF_INET) + attribute(16, b"\xff\xff\xff\xff")
    assert ListedRule(payload).rule != RULES["by mark"]


def test_another_protocol_is_not_ours() -> None:
    payload = RULES["by mark"].payload(socket.AF_INET) + attribute(21, b"\x04")
    assert not ListedRule(payload).is_ours


def test_a_route_is_read() -> None:
    header = bytes((socket.AF_INET6, 0, 0, 0, 0, 101, 254, 2)) + bytes(4)
    route = ListedRoute(header + attribute(15, struct.pack("=I", 10101)))
    assert (route.is_ours, route.is_local_default, route.table) == (True, True, 10101)
    assert not ListedRoute(bytes((socket.AF_INET, 8)) + header[2:]).is_local_default


@given(st.binary(max_size=120), st.sampled_from((b"", b"\x02", b"\x0a", b"\x02\0\x18\0\0\0\0\x01")))
def test_any_bytes_are_a_rule_or_refused(data: bytes, head: bytes) -> None:
    try:
        listed = ListedRule(head + data)
        assert isinstance(listed.rule, Rule)
        assert isinstance(listed.is_ours, bool)
        if listed.family in (socket.AF_INET, socket.AF_INET6):
            assert str(listed).startswith("ip ")
    except KernelError:
        return


@given(st.binary(max_size=60))
def test_any_bytes_are_a_route_or_refused(data: bytes) -> None:
    try:
        route = ListedRoute(data)
        assert 0 <= route.table < 2**32
    except KernelError:
        return
