"""What the matcher finds is what ``Pattern.matches`` and ``ipaddress`` say."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.names import DnsName
from egressproxy.patterns import Pattern, parse_pattern
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.matcher import AddressUse, Matcher, pattern_key, text_key
from egressproxy.policy.table import Table
from tests.policy.building import name_list, policy, rule

LABELS = st.sampled_from(["a", "ab", "md-1"])  # few, so that patterns meet
TEXTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
SUFFIXES = st.lists(LABELS, min_size=1, max_size=2).map(".".join)
PATTERNS = st.builds(
    lambda prefix, suffix: Pattern(str.__new__(DnsName, suffix), prefix),
    st.sampled_from([None, "", "a", "ab", "md-", "md-1", "m"]),
    SUFFIXES,
)


def matcher_of(*patterns: Pattern, listed: tuple[str, ...] = ()) -> Matcher:
    rules = [rule(f"r{i}", patterns=(pattern,)) for i, pattern in enumerate(patterns)]
    if listed:
        rules.append(rule("list", lists=(name_list(*listed),)))
    return compile_policy(policy(*rules)).program.matcher


def found(matcher: Matcher, name: str) -> set[int]:
    return {number for value in matcher.names(name) for number in matcher.group(value)}


@given(st.lists(PATTERNS, max_size=12), st.lists(TEXTS, max_size=6))
def test_names(patterns: list[Pattern], names: list[str]) -> None:
    matcher = matcher_of(*patterns)
    for name in names:
        expected = {i for i, pattern in enumerate(patterns) if pattern.matches(name)}
        assert found(matcher, name) == expected


@given(st.lists(PATTERNS, max_size=8), st.text(alphabet="ab.*=,?-\0é\udc80", max_size=12))
def test_texts_that_are_no_names(patterns: list[Pattern], text: str) -> None:
    matcher = matcher_of(*patterns)
    assert found(matcher, text) == {i for i, p in enumerate(patterns) if p.matches(text)}


@pytest.mark.parametrize("text", [".a.test", "..a.test", ".", "", "a.test.", "*.a.test"])
def test_empty_labels(text: str) -> None:
    patterns = [parse_pattern(text) for text in ("*.a.test", "a.test", "x*.a.test")]
    assert found(matcher_of(*patterns), text) == {
        i for i, pattern in enumerate(patterns) if pattern.matches(text)
    }


@given(PATTERNS)
def test_lists_and_rules_have_the_same_keys(pattern: Pattern) -> None:
    assert text_key(str(pattern)) == pattern_key(pattern)


@given(st.lists(PATTERNS, max_size=8), st.lists(PATTERNS, max_size=8), TEXTS)
def test_a_list_is_a_rule_with_many_patterns(
    rules: list[Pattern], listed: list[Pattern], name: str
) -> None:
    matcher = matcher_of(*rules, listed=tuple(map(str, listed)))
    expected = {i for i, pattern in enumerate(rules) if pattern.matches(name)}
    if any(pattern.matches(name) for pattern in listed):
        expected.add(len(rules))
    assert found(matcher, name) == expected


def test_every_length_of_prefix() -> None:
    patterns = [Pattern(DnsName("x.test"), "a" * length) for length in range(1, 64)]
    matcher = matcher_of(*patterns)
    for length in (1, 2, 32, 63, 64, 80):
        assert len(found(matcher, "a" * length + ".x.test")) == min(length - 1, 63)


class _Counting(Table):
    __slots__ = ()
    probes = 0

    def find(self, key: bytes) -> int | None:
        type(self).probes += 1
        return super().find(key)


@pytest.mark.parametrize("rules", [10, 1000])
def test_the_cost_does_not_depend_on_the_rules(rules: int) -> None:
    patterns = [parse_pattern(f"*.s{i}.zone.test") for i in range(rules)]
    patterns += [parse_pattern(f"p{i:04}*.zone.test") for i in range(rules)]
    program = compile_policy(policy(rule("r", patterns=tuple(patterns)))).program
    table = program.matcher.table
    counting = _Counting(table.buffer, table.layout)
    matcher = Matcher(counting, program.matcher.words, program.facts.depths)
    _Counting.probes = 0
    assert found(matcher, "x.y.s7.zone.test") == {0}
    assert found(matcher, "p0007-x.zone.test") == {0}
    assert found(matcher, "a." * 120 + "test") == set()
    assert _Counting.probes <= 14


@given(st.lists(PATTERNS, max_size=12), PATTERNS, st.lists(TEXTS, min_size=1, max_size=3))
def test_covering(patterns: list[Pattern], wanted: Pattern, middles: list[str]) -> None:
    """Whatever covers a pattern means each of its names; what means odd ones of them covers it."""
    matcher = matcher_of(*patterns)
    covering = {
        number for value in matcher.covering(str(wanted)) for number in matcher.group(value)
    }
    names = [str(wanted).replace("*", middle) for middle in middles]
    odd = [str(wanted).replace("*", middle) for middle in ("q", "q.q")]
    assert covering <= {i for i, pattern in enumerate(patterns) if all(map(pattern.matches, names))}
    assert covering == {i for i, pattern in enumerate(patterns) if all(map(pattern.matches, odd))}


@given(
    st.lists(st.tuples(st.ip_addresses(), st.integers(0, 128)), max_size=12),
    st.lists(st.ip_addresses(), max_size=4),
)
def test_addresses(
    pairs: list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]],
    others: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> None:
    nets = [
        ipaddress.ip_network((address, length * address.max_prefixlen // 128), strict=False)
        for address, length in pairs
    ]
    rules = [rule(f"r{i}", networks=(net,), ports="tcp:1") for i, net in enumerate(nets)]
    matcher = compile_policy(policy(*rules)).program.matcher
    for address in [*others, *(pair[0] for pair in pairs)]:
        values = matcher.addresses(AddressUse.DESTINATION, address.packed)
        numbers = {number for value in values for number in matcher.group(value)}
        assert numbers == {i for i, net in enumerate(nets) if address in net}
    for inner in nets:
        holding = {n for value in matcher.holding(inner) for n in matcher.group(value)}
        assert holding == {
            i
            for i, outer in enumerate(nets)
            if outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]
        }
        assert matcher.addresses(AddressUse.SOURCE, address.packed) == []
