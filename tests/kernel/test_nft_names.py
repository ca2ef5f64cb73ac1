from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egressproxy.kernel import marks
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.nft_names import (
    MAX_COMMENT,
    LogWord,
    Outcome,
    comment_of,
    name_sets,
    range_set,
    rule_counter,
)
from egressproxy.names import DnsName

IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,31}")


@pytest.mark.parametrize(
    "name",
    [
        *Outcome,
        rule_counter("rules/github"),
        rule_counter('"; flush ruleset; #'),
        rule_counter("\ud800"),
        *name_sets(DnsName("ntp.example")),
        range_set(4, "10.0.0.0/8"),
    ],
)
def test_names_are_plain_identifiers(name: str) -> None:
    assert IDENTIFIER.fullmatch(name)


def test_a_name_depends_on_what_it_is_of() -> None:
    assert rule_counter("rules/a") == rule_counter("rules/a") != rule_counter("rules/b")
    assert len({*name_sets(DnsName("a.example")), *name_sets(DnsName("b.example"))}) == 4
    assert range_set(4, "10.0.0.0/8") != range_set(6, "10.0.0.0/8")


@pytest.mark.parametrize("word", LogWord)
def test_log_words_are_short_and_plain(word: str) -> None:
    assert re.fullmatch(r"[a-z]{4,10}", word)


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("rules/github", '"rules/github"'),
        ("aks/core#mcr:443 (a, b)", '"aks/core#mcr:443 (a, b)"'),
        ('a"; flush ruleset; "', '"a_; flush ruleset; _"'),
        ("new\nline\x1b[31m\0", '"new_line__31m_"'),
        ("ends in *", '"ends in _"'),
        ("back\\slash $x", '"back_slash _x"'),
        ("ümläut", '"_ml_ut"'),
        ("x" * 200, '"' + "x" * MAX_COMMENT + '"'),
    ],
)
def test_comments_hold_nothing_that_nft_or_a_terminal_reads(text: str, comment: str) -> None:
    assert comment_of(text) == comment


@pytest.mark.parametrize(
    "word",
    [
        *(f"| `{outcome}` |" for outcome in Outcome),
        *(f"`{word}`" for word in LogWord),
        *(
            f"| `{bit:#010x}` |"
            for bit in (
                marks.FORWARDED,
                marks.PROXIED,
                marks.JUDGED,
                marks.TPROXY,
                marks.OLD_ALLOWS,
            )
        ),
    ],
)
def test_the_docs_say_what_it_is(word: str) -> None:
    assert word in (Path(__file__).parents[2] / "docs" / "kernel-table.md").read_text()


@pytest.mark.netns
@settings(max_examples=25, deadline=None)
@given(st.text(max_size=150))
def test_nft_takes_any_comment_as_one(text: str) -> None:
    assert shutil.which("nft")
    Nft().check(
        "table inet egressproxy_comment_test {\n"
        f"\tchain c {{\n\t\tcomment {comment_of(text)}\n"
        f"\t\treturn comment {comment_of(text)}\n\t}}\n}}\n"
    )
