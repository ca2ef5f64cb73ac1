from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.names import DnsName
from egressproxy.policy.lookalike import decoded, foreign_letters, skeleton


@pytest.mark.parametrize(
    "name",
    ["g\u0131thub.com", "g1thub.com", "g\u0456thub.com", "glthub.com"],
)
def test_alike(name: str) -> None:
    assert skeleton(DnsName(name)) == skeleton("github.com")


@pytest.mark.parametrize("name", ["github.co", "githubs.com", "gitlab.com", "例え.jp"])
def test_not_alike(name: str) -> None:
    assert skeleton(DnsName(name)) != skeleton("github.com")


def test_pairs() -> None:
    assert skeleton("rnicrosoft.com") == skeleton("microsoft.com")
    assert skeleton("vvindows.net") == skeleton("windows.net")


def test_names_of_letters() -> None:
    assert foreign_letters(DnsName("g\u0456thub.com")) == (
        "CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I",
    )
    assert foreign_letters("github.com") == ()
    assert decoded(DnsName("bücher.example")) == "bücher.example"


@given(st.text(max_size=20))
def test_any_text(text: str) -> None:
    skeleton(text)
    foreign_letters("xn--" + text)
