"""The three pattern forms: what each accepts and rejects, and what is refused with which hint."""

from __future__ import annotations

from pathlib import Path

import publicsuffixlist
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import PatternError
from egressproxy.patterns import is_public_suffix, may_be_public_suffix, parse_pattern

MEANING = {
    "mcr.microsoft.com": (
        ["mcr.microsoft.com"],
        ["a.mcr.microsoft.com", "microsoft.com", "xmcr.microsoft.com"],
    ),
    "*.data.mcr.microsoft.com": (
        ["eastus.data.mcr.microsoft.com", "a.b.data.mcr.microsoft.com"],
        ["data.mcr.microsoft.com", "xdata.mcr.microsoft.com", "mcr.microsoft.com"],
    ),
    "md-*.blob.storage.azure.net": (
        ["md-x.blob.storage.azure.net", "md-x.z12.blob.storage.azure.net"],
        [
            "md-.blob.storage.azure.net",
            "md.blob.storage.azure.net",
            "x.md-x.blob.storage.azure.net",
            "blob.storage.azure.net",
            "amd-x.blob.storage.azure.net",
        ],
    ),
    "a*.a.example": (["aa.a.example", "ab.a.example"], ["a.a.example", "a.example"]),
}


@pytest.mark.parametrize("text", MEANING)
def test_meaning(text: str) -> None:
    pattern = parse_pattern(text)
    accepted, rejected = MEANING[text]
    assert str(pattern) == text
    assert pattern.is_exact is ("*" not in text)
    assert [name for name in accepted + rejected if pattern.matches(name)] == accepted


NORMAL_FORMS = {
    "*.Example.COM.": "*.example.com",
    "MD-*.Blob.Example": "md-*.blob.example",
    "*.bücher.example": "*.xn--bcher-kva.example",
    "*.internal": "*.internal",
    "*.blob.core.windows.net": "*.blob.core.windows.net",
}


@pytest.mark.parametrize("text", NORMAL_FORMS)
def test_normal_form(text: str) -> None:
    assert str(parse_pattern(text)) == NORMAL_FORMS[text]


REFUSED = {
    "*": "*.suffix",
    "": "*.suffix",
    "*.": "*.suffix",
    "*.*.example.com": "*.suffix",
    "*microsoft.com": "write *.microsoft.com",
    "www.*.com": "left-most label",
    "a.b*.example.com": "left-most label",
    "www.example.*": "*.suffix",
    "a*b.example.com": "left-most label",
    "**.example.com": "*.suffix",
    "*.com": "*.example.com",
    "*.co.uk": "*.example.co.uk",
    "x*.com": "*.example.com",
    "-*.example.com": "*.suffix",
    "*.20.1.2.3": "host name",
    "20.1.2.3": "host name",
    "exa mple.com": "letters",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_with_a_hint(text: str) -> None:
    with pytest.raises(PatternError) as caught:
        parse_pattern(text)
    assert REFUSED[text] in caught.value.hint


SUFFIXES = {
    ("com", False): True,
    ("co.uk", False): True,
    ("microsoft.com", False): False,
    ("internal", False): False,
    ("blob.core.windows.net", False): False,
    ("blob.core.windows.net", True): True,
    ("azurewebsites.net", True): True,
    ("com", True): True,
}


@pytest.mark.parametrize("case", SUFFIXES)
def test_public_suffix(case: tuple[str, bool]) -> None:
    name, private = case
    assert is_public_suffix(name, private=private) is SUFFIXES[case]


QUICK = {
    "a rule": ("co.uk", True),
    "the root of a wildcard rule": ("ck", True),
    "below a wildcard rule": ("anything.ck", True),
    "its exception": ("www.ck", True),
    "a private rule": ("blob.core.windows.net", True),
    "below a rule": ("example.co.uk", False),
    "two below a wildcard rule": ("a.example.ck", False),
    "no top-level domain": ("internal", False),
}


@pytest.mark.parametrize(("name", "may_be"), QUICK.values(), ids=QUICK)
def test_quick_look(name: str, may_be: bool) -> None:
    assert may_be_public_suffix(name) is may_be


def test_the_quick_look_misses_no_rule() -> None:
    lines = Path(publicsuffixlist.PSLFILE).read_text("utf-8").splitlines()
    rules = [line.split()[0] for line in lines if line.isascii() and line.strip()]
    tails = {rule.removeprefix("!").removeprefix("*.") for rule in rules if rule[:2] != "//"}
    names = [near for tail in tails for near in (tail, f"x.{tail}", f"y.x.{tail}")]
    public = {name for name in names if is_public_suffix(name)}
    assert len(public) > 5000
    assert {name for name in public if not may_be_public_suffix(name)} == set()


@given(st.text("ab*.-x", max_size=20))
def test_any_text_is_a_pattern_with_a_normal_form_or_an_error(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except PatternError:
        return
    assert parse_pattern(str(pattern)) == pattern
    assert not pattern.matches("evil.invalid")
