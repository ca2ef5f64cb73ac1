"""That looking for what covers a rule does not cost the pairs of rules; what it finds is in
``test_lint_order``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.policy import lint_cover
from egressproxy.policy.lint_cover import Cover
from egressproxy.policy.matcher import Matcher
from tests.policy.building import name_list, networks, rule
from tests.policy.linting import survey

if TYPE_CHECKING:
    from egressproxy.policy.rules import Rule


def covered(*rules: Rule) -> list[int]:
    """The numbers of the rules that others decide all of."""
    found = survey(*rules)
    cover = Cover(found)
    return [number for number, _ in found.in_force() if cover.of(number) is not None]


def count_comparisons(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked = [0]
    original = Cover._covers

    def counted(self: Cover, *arguments: object) -> bool:
        asked[0] += 1
        return original(self, *arguments)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Cover, "_covers", counted)
    return asked


def test_a_rule_for_everyone_after_rules_for_some() -> None:
    some = [rule(f"r{i}", "x.test", sources=f"10.0.{i}.0/24") for i in range(3)]
    assert covered(*some, rule("all", "x.test"), rule("none", "x.test")) == [4]
    assert covered(rule("all", "x.test"), *some) == [1, 2, 3]


def test_many_rules_for_one_name_are_not_compared_in_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = count_comparisons(monkeypatch)
    count = 3000
    many = [rule(f"r{i}", "*.x.test", sources=f"10.{i >> 8}.{i & 255}.0/24") for i in range(count)]
    assert covered(*many) == []
    assert asked[0] <= count * lint_cover.MAX_GATES


def test_the_same_gate_is_found_however_many_there_are() -> None:
    many = [rule(f"r{i}", "*.x.test", sources=f"10.0.{i}.0/24") for i in range(200)]
    assert covered(*many, rule("again", "a.x.test", sources="10.0.199.0/24")) == [200]


def test_rules_with_unlike_names_are_not_compared_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_comparisons(monkeypatch)
    assert covered(*(rule(f"r{i}", f"x{i}.test", f"*.y{i}.test") for i in range(2000))) == []
    assert asked[0] <= 4000


def test_a_list_is_looked_through_up_to_its_first_open_entry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = tuple(f"x{i}.test" for i in range(1000))
    looked_up: list[str] = []
    original = Matcher.covering

    def counted(self: Matcher, text: str) -> list[int]:
        looked_up.append(text)
        return original(self, text)

    monkeypatch.setattr(Matcher, "covering", counted)
    assert covered(rule("a", *names[1:]), rule("b", lists=(name_list(*names),))) == []
    assert len(looked_up) < 1010


def test_lists_are_looked_up_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"x{i}.test" for i in range(10))
    wide, listed = rule("a", "*.test"), rule("b", lists=(name_list(*names),))
    assert covered(wide, listed) == [1]
    monkeypatch.setattr(lint_cover, "MAX_ENTRIES", 9)
    assert covered(wide, listed) == []
    assert covered(listed, listed) == [1], "a list as a whole costs no look"


def test_a_rule_of_many_port_spans_is_not_looked_at() -> None:
    ports = " ".join(f"tls:{1000 + i}" for i in range(lint_cover.MAX_SPANS + 1))
    one = rule("a", "x.test", ports=ports)
    assert covered(one, one) == []
    found = Cover(survey(one, one))
    assert found.of_name(1, "x.test") is None


@pytest.mark.parametrize("inner", ["20.9.1.0/24", "20.9.0.0/16", "2001:db8::/48"])
def test_networks_hold_networks(inner: str) -> None:
    outer = rule("a", "20.9.0.0/16", "2001:db8::/32", "20.9.1.128/25", ports="tcp:443")
    found = Cover(survey(outer, rule("b", inner, "1.1.1.1", ports="tcp:443")))
    assert found.of(1) is None
    assert found.of_network(1, networks(inner)[0]) == {0}
    assert found.of_network(1, networks("20.8.0.0/15")[0]) is None
