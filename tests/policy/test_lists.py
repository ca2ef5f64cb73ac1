"""``list:`` files: the bulk path and the odd lines agree with ``parse_pattern``."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import PatternError
from egressproxy.patterns import parse_pattern
from egressproxy.policy import lists
from egressproxy.policy.lists import parse_list
from egressproxy.policy.problems import Problems

PATH = Path("names.txt")


def parse(text: str | bytes) -> tuple[tuple[str, ...], list[str]]:
    problems = Problems()
    data = text.encode() if isinstance(text, str) else text
    names = parse_list(data, PATH, problems.of(PATH))
    return names.entries, [str(problem) for problem in problems.found]


def test_normal_forms_in_file_order() -> None:
    text = (
        "\ufeffzeta.example.com\r\n\n# all of it\n*.Example.COM  # ours\n"
        "bücher.example.\nmd-*.example.com"
    )
    assert parse(text) == (
        ("zeta.example.com", "*.example.com", "xn--bcher-kva.example", "md-*.example.com"),
        [],
    )


WRONG = {
    "two names": (
        "0.0.0.0 ads.example.com",
        "names.txt:2:1: '0.0.0.0 ads.example.com' is more than one name,"
        " hint: one name a line: ads.example.com",
    ),
    "address": (
        "10.0.0.0/8",
        "names.txt:2:1: '10.0.0.0/8' is an address,"
        " hint: a list holds names: write ranges in a rule's to:",
    ),
    "wildcard": (
        "*example.com",
        "names.txt:2:1: '*example.com' is not one of the three forms, hint: write *.example.com"
        " (and example.com for the apex): *example.com would also match evilexample.com",
    ),
    "ad block": ("||example.com^", "names.txt:2:1: '||example.com^': '||example.com^' is not a"),
    "long": ("a" * 1001, "names.txt:2:1: a line of 1,001 characters, hint: one name a line"),
    "number": ("example.123", "names.txt:2:1: 'example.123': 'example.123' is an address, not a"),
}


@pytest.mark.parametrize(("line", "problem"), WRONG.values(), ids=WRONG)
def test_wrong_line(line: str, problem: str) -> None:
    entries, problems = parse(f"good.example.com\n{line}\nalso-good.example.com\n")
    assert entries == ("good.example.com", "also-good.example.com")
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_many_wrong_lines_are_counted() -> None:
    _, problems = parse("not a name\n" * 1000)
    assert len(problems) == lists.MAX_TOLD + 1
    assert problems[-1] == "names.txt:1001:1: 980 more wrong lines are not shown"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n\n"])
def test_empty(text: str) -> None:
    assert parse(text) == ((), ["names.txt: an empty list, hint: one name or pattern a line"])


def test_not_text() -> None:
    assert parse(b"a.example.com\n\xff")[1] == [
        "names.txt:2:1: byte 0xff is not UTF-8, hint: save the file as UTF-8"
    ]


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_LIST_BYTES", 1 << 20)
    assert "larger than 1 MB" in parse(b"#" * ((1 << 20) + 1))[1][0]


def test_a_million_names_take_the_bulk_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """No object is made a line: the slow path is not entered once."""

    def refuse(text: str) -> object:
        raise AssertionError(text)

    monkeypatch.setattr(lists, "parse_pattern", refuse)
    data = "".join(f"host-{i}.sub{i % 977}.example.com\n" for i in range(1_000_000)).encode()
    started = time.process_time()
    entries = parse_list(data, PATH, Problems().of(PATH)).entries
    assert len(entries) == 1_000_000
    assert time.process_time() - started < 20  # seconds: only a runaway fails


@given(st.text(alphabet="abxn-_.*0123456789é", min_size=1, max_size=70))
def test_agrees_with_parse_pattern(line: str) -> None:
    entries, problems = parse(f"{line}\nlast.example.com\n")
    try:
        expected = (str(parse_pattern(line)), "last.example.com")
    except PatternError:
        assert problems
        assert entries == ("last.example.com",)
    else:
        assert (entries, problems) == (expected, [])


_SUFFIXES = (
    *("com", "co.uk", "uk", "ck", "www.ck", "kawasaki.jp", "city.kawasaki.jp", "pvt.k12.ma.us"),
    *("github.io", "blob.core.windows.net", "azurewebsites.net", "s3.amazonaws.com", "internal"),
    *("co.za", "za", "xn--p1ai", "рф", "公司.cn", "windows.net", "example.com", "example.com."),
)
_WILDCARDS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["*.", "*.", "*.", "*", "x*.", "*.*.", "*.a" + "b" * 50 + "."]),
        st.one_of(st.just(""), st.text(alphabet="abxnC-_.*09é", max_size=8)),
        st.sampled_from(["", "."]),
        st.sampled_from(_SUFFIXES),
    ),
)


@given(_WILDCARDS | st.text(max_size=70) | st.text(max_size=70).map("*.{}".format))
def test_the_quick_path_of_wildcards_agrees_with_the_slow_one(text: str) -> None:
    """Same entries, same refusals, same words."""
    quick = parse(text.encode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "_is_plain_wildcard", lambda _: False)
        assert parse(text.encode("utf-8", "replace")) == quick


WILDCARDS = {
    "*.com": False,
    "*.co.uk": False,
    "*.example.ck": False,
    "*.www.ck": True,
    "*.github.io": True,
    "*.blob.core.windows.net": True,
    "*.internal": True,
    "*.example.com": True,
}


@pytest.mark.parametrize("line", WILDCARDS)
def test_wildcards_over_suffixes(line: str) -> None:
    entries, problems = parse(line)
    assert entries == ((line,) if WILDCARDS[line] else ())
    refusal = f"names.txt:1:1: '{line}' is a wildcard directly under the public suffix '{line[2:]}'"
    assert [each.partition(",")[0] for each in problems] == [refusal] * (not WILDCARDS[line])


def test_wildcards_take_the_quick_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> object:
        raise AssertionError(text)

    monkeypatch.setattr(lists, "parse_pattern", refuse)
    assert parse("*.a-1.example.com\n*.b.example.co.uk\n")[1] == []


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_LIST_LINES", 3)
    assert parse("a.test\n\n\nb.test") == (("a.test", "b.test"), [])
    assert parse("\n\n\n\n") == (
        (),
        ["names.txt: more than 3 lines, hint: split it into several lists"],
    )


def test_the_first_wildcard() -> None:
    names = parse_list(b"a.test\n# *.b.test\nm-*.c.test\n*.d.test", PATH, Problems().of(PATH))
    assert names.wildcard == "m-*.c.test"
    assert parse_list(b"a.test\nB.test", PATH, Problems().of(PATH)).wildcard == ""
