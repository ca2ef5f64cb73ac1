"""How pages write what they show: escaped, visible, readable."""

from __future__ import annotations

import time
import unicodedata
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import escape

from egressproxy.admin.render import (
    MAX_SHOWN,
    ago,
    clock,
    iso,
    link,
    number,
    octets,
    peer,
    render,
    short_number,
    span,
    visible,
)
from egressproxy.review.ask import read_filter


@given(st.text(max_size=400))
def test_nothing_of_a_peer_is_markup_or_invisible(text: str) -> None:
    shown = str(peer(text))
    inside = shown.removeprefix('<bdi class="peer">').removesuffix("</bdi>")
    if text:
        assert inside != shown
        without_breaks = inside.replace("<wbr>", "")
        assert "<" not in without_breaks
        assert ">" not in without_breaks
        assert '"' not in without_breaks
        assert without_breaks == str(escape(visible(text)))
    for letter in visible(text):
        assert unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.example", "plain.example"),
        ("a\r\nb", "a\\r\\nb"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\x00\x1b[31m", "\\x00\\x1b[31m"),
        ("مثال", "مثال"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_long_texts_are_cut_and_may_break() -> None:
    assert visible("x" * 10_000) == "x" * MAX_SHOWN + "…"
    assert "<wbr>" in str(peer("a" * 30))
    assert "<wbr>" not in str(peer("192.168.100.200"))
    assert "westeurope.<wbr>monitoring.<wbr>azure.<wbr>com" in str(
        peer("westeurope.monitoring.azure.com")
    )


@pytest.mark.parametrize("nothing", [None, ""])
def test_nothing(nothing: str | None) -> None:
    assert str(peer(nothing, empty="(no name)")) == '<span class="none">(no name)</span>'


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (999, "999"), (1234, "1.2k"), (34_567, "35k"), (5.6e6, "5.6M"), (2e9, "2.0G")],
)
def test_short_number(value: float, shown: str) -> None:
    assert short_number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (300 * 2**20, "300 MiB"),
        (2**60, "1024 PiB"),
    ],
)
def test_octets(value: float, shown: str) -> None:
    assert octets(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86400 + 60, "1 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_span(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def test_moments() -> None:
    assert "2026-09-22" in clock(1_790_035_202)
    assert "00:00:02" in clock(1_790_035_202)
    assert 'title="2026-09-22 00:00:02 UTC"' in ago(1_790_035_202)
    assert ">now<" in ago(time.time())
    assert number(1234567) == "1,234,567"


def test_a_moment_in_a_link_is_read_back_by_the_filter() -> None:
    where, problems = read_filter({"since": [iso(1_790_035_200)]}, 1_790_100_000)
    assert not problems
    assert where.since == 1_790_035_200


@given(st.text(min_size=1, max_size=60))
def test_a_link_carries_a_hostile_name_whole(name: str) -> None:
    text = link("/review/name", name=name.encode("utf-8", "replace").decode(), since=None)
    parts = urlsplit(text)
    assert parts.path == "/review/name"
    assert not parts.fragment
    wanted = name.encode("utf-8", "replace").decode()
    assert parse_qs(parts.query, keep_blank_values=True) == {"name": [wanted]}


def test_keys_that_python_keeps_for_itself() -> None:
    assert (
        link("/x", from_="10.0.0.0/8", class_=["a", "b"]) == "/x?from=10.0.0.0%2F8&class=a&class=b"
    )


def test_a_template_that_lacks_something_fails() -> None:
    with pytest.raises(UndefinedError):
        render("error.html", {})
