"""What nft says when it fails, and what is told for it."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import KernelError
from egressproxy.kernel import nft_fault

SAID: Final = {
    "not root": (
        "Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed:"
        " Operation not permitted\n",
        "permission",
        "it needs CAP_NET_ADMIN: run it as root",
    ),
    "no tproxy": (
        "/dev/stdin:5:50-90: Error: Could not process rule: No such file or directory\n"
        "    meta nfproto ipv4 tcp dport 443 tproxy ip to :15002 accept\n    ^^^^^^^^^^^^\n",
        "module",
        "modprobe -a nft_tproxy nf_tproxy_ipv4 nf_tproxy_ipv6",
    ),
    "no nat": (
        "/dev/stdin:3:7-11: Error: Could not process rule: Operation not supported\n"
        "    chain dstnat { type nat hook prerouting priority dstnat; }\n          ^^^^^^\n",
        "module",
        "modprobe -a nft_chain_nat",
    ),
    "no nfnetlink_log": (
        "/dev/stdin:3:7-11: Error: Could not process rule: Protocol not supported\n"
        '    limit rate 10/second log prefix "deny" group 100\n    ^^^^^^\n',
        "module",
        "modprobe -a nft_log nfnetlink_log",
    ),
    "a set that is not there is no module": (
        "/dev/stdin:1:30-31: Error: No such file or directory; did you mean set 's1'?\n"
        "add element inet egressproxy log { 1.2.3.4 }\n                             ^^\n",
        "script",
        "",
    ),
    "a lack that no statement explains": (
        "/dev/stdin:1:1-9: Error: Could not process rule: No such file or directory\n"
        "delete chain inet egressproxy x\n",
        "script",
        "",
    ),
    "a syntax error": (
        "/dev/stdin:1:9-9: Error: syntax error, unexpected '{', expecting string\ngarbage {\n",
        "script",
        "",
    ),
    "nothing at all": ("", "script", ""),
}


@pytest.mark.parametrize("case", SAID)
def test_refusals(case: str) -> None:
    said, code, hint = SAID[case]
    error = nft_fault.refusal(said)
    assert (error.code, error.hint) == (code, hint)
    assert error.message


@given(st.text())
def test_any_words_become_few_and_harmless(said: str) -> None:
    text = nft_fault.refusal(said).message
    assert len(text) < 2000
    assert all(char.isprintable() or char == "\n" for char in text)
    assert text.count("\n") <= 6


def test_a_line_of_ten_thousand_elements_is_not_told_whole() -> None:
    said = "Error: x\nadd element inet egressproxy s { " + "10.0.0.1, " * 10_000 + "}\n" * 100
    assert len(nft_fault.refusal(said).message) < 1500


VERSIONS: Final = {
    "nftables v1.0.6 (Lester Gooch #5)\n": (1, 0, 6),
    "nftables v1.1 (x)": (1, 1),
    "nftables v0.9.3": (0, 9, 3),
}


@pytest.mark.parametrize("text", VERSIONS)
def test_versions(text: str) -> None:
    assert nft_fault.read_version(text) == VERSIONS[text]


@pytest.mark.parametrize("text", ["", "nftables v", "bash 5.2.15", "nftables v" + "9" * 5000])
def test_what_is_no_version_is_told(text: str) -> None:
    with pytest.raises(KernelError, match="nft --version says") as caught:
        nft_fault.read_version(text)
    assert caught.value.code == "version"
    assert "apt install nftables" in caught.value.hint


def test_an_old_one_is_named_with_the_one_that_will_do() -> None:
    assert "nft 0.9.3 is too old: 1.0.6" in str(nft_fault.too_old((0, 9, 3)))
