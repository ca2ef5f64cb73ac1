"""The signs of somebody who avoids the gateway, and what only looks like one."""

from __future__ import annotations

from typing import Any, Final

import pytest

from egressproxy.policy.verdict import Reason
from egressproxy.ports import Protocol
from egressproxy.review.behaviour import Behaviour
from egressproxy.review.signs import clear_sign, faint_sign, tunnel_sign
from tests.review.subjects import subject

SOURCE: Final = "10.240.0.4"
DID: Final = Behaviour(
    names={SOURCE: 120},
    addresses={SOURCE: 70},
    tunnels={(SOURCE, "t.evil.example"): 40},
    second_tries={(SOURCE, "20.9.9.9"): "refused.example"},
)
NOTHING: Final = Behaviour()

CLEAR: dict[str, tuple[dict[str, Any], Behaviour, str]] = {
    "overflow": ({"is_overflow": True, "name": None}, NOTHING, "wanted so many different things"),
    "split hello": ({"hello_split": True}, NOTHING, "came in pieces"),
    "two names": ({"reason": Reason.HOST_MISMATCH}, NOTHING, "domain fronting"),
    "second try": ({"name": None, "dst_ip": "20.9.9.9"}, DID, "was refused refused.example and"),
    "metadata service": (
        {"name": None, "dst_ip": "169.254.169.254", "reason": Reason.FORBIDDEN_ADDRESS},
        NOTHING,
        "169.254.169.254, an address of the machine itself",
    ),
    "wire server": (
        {"name": None, "dst_ip": "168.63.129.16", "reason": Reason.FORBIDDEN_ADDRESS},
        NOTHING,
        "metadata service",
    ),
    "loopback": (
        {"name": None, "dst_ip": "::1", "reason": Reason.FORBIDDEN_ADDRESS},
        NOTHING,
        "::1, an address of the machine itself",
    ),
}


@pytest.mark.parametrize(("more", "did", "words"), CLEAR.values(), ids=CLEAR)
def test_clear_signs(more: dict[str, Any], did: Behaviour, words: str) -> None:
    assert words in clear_sign(subject(**more), did)


NOT_CLEAR: dict[str, dict[str, Any]] = {
    "a plain deny": {},
    "a name at an address that was tried": {"dst_ip": "20.9.9.9"},
    "another source at that address": {"name": None, "dst_ip": "20.9.9.9", "src_ip": "10.0.0.1"},
    "a name that leads inside": {"dst_ip": "127.0.0.1", "reason": Reason.FORBIDDEN_ADDRESS},
    "a private address": {
        "name": None,
        "dst_ip": "10.0.0.9",
        "reason": Reason.FORBIDDEN_ADDRESS,
    },
    "no address": {"name": None, "dst_ip": None, "reason": Reason.FORBIDDEN_ADDRESS},
    "nonsense": {"name": None, "dst_ip": "\x00", "reason": Reason.FORBIDDEN_ADDRESS},
}


@pytest.mark.parametrize("more", NOT_CLEAR.values(), ids=NOT_CLEAR)
def test_no_clear_sign(more: dict[str, Any]) -> None:
    assert clear_sign(subject(**more), DID) == ""


def test_a_tunnel() -> None:
    sign = tunnel_sign(subject("0af3.t.evil.example"), DID)
    assert "40 long names below t.evil.example" in sign
    for other in (subject("evil.example"), subject(None), subject("a.t.evil.example", src_ip="x")):
        assert tunnel_sign(other, DID) == ""


FAINT: dict[str, tuple[dict[str, Any], Behaviour, str]] = {
    "no SNI": ({"name": None, "reason": Reason.NO_SNI}, NOTHING, "TLS without a server name"),
    "an address for a name": (
        {"name": None, "reason": Reason.IP_LITERAL},
        NOTHING,
        "an address in place of a name, to the public address 20.1.2.3",
    ),
    "a scan": ({"name": None, "protocol": "tcp"}, DID, "70 different addresses"),
    "TLS on an odd port": ({"dst_port": 4444}, NOTHING, "TLS on port 4444"),
    "many names": ({}, DID, "120 different names"),
}


@pytest.mark.parametrize(("more", "did", "words"), FAINT.values(), ids=FAINT)
def test_faint_signs(more: dict[str, Any], did: Behaviour, words: str) -> None:
    assert words in faint_sign(subject(**more), did, ())


NOT_FAINT: dict[str, dict[str, Any]] = {
    "a plain deny": {},
    "no SNI to a private address": {"name": None, "reason": Reason.NO_SNI, "dst_ip": "10.0.0.9"},
    "no SNI to nowhere": {"name": None, "reason": Reason.NO_SNI, "dst_ip": None},
    "Kubernetes": {"dst_port": 6443},
    "a port of the policy": {"dst_port": 4443},
    "HTTP on an odd port": {"protocol": "http", "dst_port": 4444},
    "no port at all": {"name": None, "dst_ip": None, "dst_port": 0},
    "a packet on an odd port": {"name": None, "protocol": "tcp", "dst_port": 4444},
}


@pytest.mark.parametrize("more", NOT_FAINT.values(), ids=NOT_FAINT)
def test_no_faint_sign(more: dict[str, Any]) -> None:
    assert faint_sign(subject(**more), NOTHING, {(Protocol.TLS, 4443)}) == ""
