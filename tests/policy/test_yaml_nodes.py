"""YAML text to nodes: bounds, marks and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy import yaml_nodes
from egressproxy.policy.problems import Problems
from egressproxy.policy.yaml_nodes import MAX_DEPTH, Mapping, Node, Scalar, Sequence, parse_yaml


def parse(data: bytes | str) -> tuple[Node | None, list[str]]:
    found = Problems()
    node = parse_yaml(data.encode() if isinstance(data, str) else data, found.of("f"))
    return node, [str(problem) for problem in found.found]


def plain(node: Node | None) -> object:
    match node:
        case Scalar():
            return node.text
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {key.text: plain(value) for key, value in node.entries}
        case None:
            return None


REFUSED = {
    "duplicate key": (
        "a: 1\nb: 2\na: 3\n",
        "f:3:1: key 'a' is written twice, hint: the first is on line 1: keep one",
    ),
    "merge key": (
        "a: &x {k: 1}\nb:\n  <<: *x\n",
        "f:3:3: merge keys (<<) are not read,"
        " hint: write the keys out, or share rules with include",
    ),
    "tag": ("a: !!python/none x", "f:1:4: the tag 'tag:yaml.org,2002:python/none', hint: tags"),
    "plain tag": ("a: ! x", "f:1:4: the tag '!', hint: tags are not read: quote the text"),
    "tag of a list": ("a: !!set [x]", "f:1:4: the tag 'tag:yaml.org,2002:set'"),
    "two documents": ("a: 1\n---\nb: 1\n", "f:2:1: a second document, hint: one policy a file"),
    "key is a list": ("? [a]\n: b\n", "f:1:5: a key that is a list or mapping"),
    "unknown alias": (
        "a: *nope",
        'f:1:4: alias *nope has no anchor, hint: quote a text that begins with *: "*nope"',
    ),
    "recursive alias": ("a: &x [*x]", "f:1:8: alias *x is inside its own anchor"),
    "anchor twice": ("a: &x 1\nb: &x 2", "f:2:4: anchor &x is defined twice"),
    "unquoted wildcard": (
        "to: [*.github.com]",
        "f:1:7: not YAML: while scanning an alias, did not find expected alphabetic or numeric"
        ' character, hint: quote a text that begins with *: "*.example.com"',
    ),
    "tab": (
        "a:\n\tb: 1",
        "f:2:1: not YAML: while scanning for the next token, found character that cannot start"
        " any token, hint: indent with spaces, not tabs",
    ),
    "at sign": ("a: @x", "f:1:4: not YAML: while scanning for the next token, found character"),
    "open list": ("a: [b", "f:1:4: not YAML: while parsing a flow sequence, did not find"),
    "open quotes": ("a: 'b", "f:1:4: not YAML: while scanning a quoted scalar, found unexpected"),
    "colon in text": ("a: b: c", "f:1:5: not YAML: mapping values are not allowed in this context"),
    "yaml 1.3": ("%YAML 1.3\n---\na: 1", "f:1:1: not YAML: found incompatible YAML document"),
    "block end": ("a: 1\n  b: 2\n - c", "f:2:4: not YAML: mapping values are not allowed"),
    "control character": ("ä:\n- é\x01", "f:2:4: character #x0001 is not allowed in YAML"),
    "NUL": ("a: b\nc: \0", "f:2:4: a NUL character, hint: this is not a text file"),
    "UTF-16": ("a: 1".encode("utf-16"), "f:1:1: UTF-16 text, hint: save the file as UTF-8"),
    "Latin-1": (b"a: 1\nb: \xe9", "f:2:4: byte 0xe9 is not UTF-8, hint: save the file as UTF-8"),
    "too deep": ("[" * 200_000, "f:1:33: nested deeper than 32 levels"),
    "too deep in blocks": ("- " * 100_000, "f:1:65: nested deeper than 32 levels"),
}


@pytest.mark.parametrize(("data", "problem"), REFUSED.values(), ids=REFUSED)
def test_refused(data: bytes | str, problem: str) -> None:
    _, problems = parse(data)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_a_duplicate_key_does_not_hide_the_rest() -> None:
    node, problems = parse("a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert plain(node) == {"a": "1", "b": {"c": "1"}}
    assert [problem.split(",")[0] for problem in problems] == [
        "f:2:1: key 'a' is written twice",
        "f:3:11: key 'c' is written twice",
    ]


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_BYTES", 3 << 20)
    _, problems = parse(b"#" * (3 << 20) + b"\n")
    assert problems == [
        "f: larger than 3 MB, hint: mass lists of names go into a file: list:names.txt"
    ]


def test_too_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_NODES", 4)
    assert parse("[a, b, c]")[1] == []
    assert parse("[a, b, c, d]")[1][0].startswith("f:1:11: more than 4 values, aliases written out")


def test_too_many_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_ALIASES", 2)
    assert parse("[&x a, *x, *x]")[1] == []
    assert parse("[&x a, *x, *x, *x]")[1][0].startswith("f:1:16: more than 2 aliases")


def test_alias_bomb_is_counted_as_if_written_out() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    _, problems = parse("\n".join(lines))
    assert len(problems) == 1
    assert "more than 2000000 values, aliases written out" in problems[0]


def test_aliases_do_not_hide_depth() -> None:
    lines = ["- &a0 [x]"] + [f"- &a{i} [*a{i - 1}]" for i in range(1, MAX_DEPTH + 1)]
    assert parse("\n".join(lines[:30]))[1] == []
    assert "nested deeper" in parse("\n".join(lines))[1][0]


def test_alias_shares_the_node() -> None:
    node, problems = parse("a: &x [b]\nc: *x\n")
    assert not problems
    assert plain(node) == {"a": ["b"], "c": ["b"]}


def test_byte_order_mark_and_marks() -> None:
    node, _ = parse("\ufeffä: [x,\n 'y']\n".encode())
    assert isinstance(node, Mapping)
    key, value = node.entries[0]
    assert (key.text, key.line, key.column) == ("ä", 1, 1)
    assert isinstance(value, Sequence)
    assert [(i.line, i.column, getattr(i, "is_plain", None)) for i in value.items] == [
        (1, 5, True),
        (2, 2, False),
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_empty_document(text: str) -> None:
    assert parse(text) == (None, ["f:1:1: an empty document, hint: a policy is a mapping of keys"])


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="ab:-[]{}&*!|>'\"\n #?,%@\t~<", max_size=60).map(str.encode),
    )
)
def test_any_bytes_give_a_tree_or_problems(data: bytes) -> None:
    node, problems = parse(data)
    assert (node is not None) or problems


def test_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_nodes, "MAX_SCALAR", 5)
    assert parse("a: '12345'")[1] == []
    assert parse("a: '123456'") == (None, ["f:1:4: a text of 6 characters"])
