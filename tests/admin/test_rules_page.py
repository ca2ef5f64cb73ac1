"""The policy in force: what is known of each rule's use, and the page in a real browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.review_data import TroubleError
from egressproxy.admin.rules_page import MAX_TO, Look, RulesView, read_look, rules_view
from egressproxy.policy.rules import Origin
from egressproxy.policy.verdict import Action
from egressproxy.review.unused import RuleUse, Use, Uses
from tests.admin.chromium import PHONE, fits, new_tab, open_site
from tests.policy.building import NOON, TODAY, YESTERDAY, policy, rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Page

    from egressproxy.policy.rules import Policy
    from tests.admin.chromium import Site

HERE = policy(
    rule("rules/one", "one.test", "*.two.test"),
    rule("rules/old", "old.test", until=YESTERDAY),
    rule("rules/last-day", "trial.test", until=TODAY),
    rule("rules/no", "gist.github.com", action=Action.DENY),
    rule("rules/net", "192.0.2.0/24", ports="tcp:1433", sources="10.1.0.0/16"),
    rule("aks/ntp#fqdn", "ntp.ubuntu.com", ports="udp:123", requirement="aks/ntp"),
    rule("aks/ntp#more", "x.test", requirement="aks/ntp"),
    requirements=("aks/ntp",),
)


def uses(of: Policy = HERE, **used: RuleUse) -> Uses:
    """Each rule unused, unless said otherwise by the last word of its id."""
    rules = [
        replace(used[name], rule=each) if (name := each.id[-3:]) in used else _unused(each)
        for each in of.rules
    ]
    return Uses(rules=tuple(rules), days=30.0, remarks=())


def _unused(each: object) -> RuleUse:
    return RuleUse(rule=each, use=Use.UNUSED)  # type: ignore[arg-type]


def shown(view: RulesView) -> list[str]:
    return [line.rule.id for section in view.sections for line in section.lines]


KINDS = {
    "all": 7,
    "unused": 6,
    "expired": 1,
    "ending": 1,
    "deny": 1,
}


@pytest.mark.parametrize(("kind", "count"), KINDS.items())
def test_kinds(kind: str, count: int) -> None:
    found = uses(one=RuleUse(rule=HERE.rules[0], use=Use.USED, flows=3, last_at=NOON))
    view = rules_view(HERE, Look(kind=kind), found, None, NOON)
    assert len(shown(view)) == view.matched == count
    assert {way.text: way.count for way in view.kinds} == KINDS


SEARCHES = {
    "a name": ("two.test", ["rules/one"]),
    "a rule": ("RULES/NO", ["rules/no"]),
    "a port": ("tcp:1433", ["rules/net"]),
    "a source": ("10.1.0.0", ["rules/net"]),
    "words": ("ntp udp:123", ["aks/ntp#fqdn"]),
    "nothing there": ("nothing.example", []),
}


@pytest.mark.parametrize(("search", "ids"), SEARCHES.values(), ids=SEARCHES.keys())
def test_searches(search: str, ids: list[str]) -> None:
    assert shown(rules_view(HERE, Look(search=search), None, None, NOON)) == ids


def test_own_rules_come_first_then_each_requirement() -> None:
    own, ntp = rules_view(HERE, Look(), uses(), None, NOON).sections
    assert (own.requirement, ntp.requirement) == ("", "aks/ntp")
    assert ntp.is_unused
    assert ntp.places == ("policy.yaml:7",)


def test_a_requirement_with_one_used_row_is_used() -> None:
    found = uses(qdn=RuleUse(rule=HERE.rules[5], use=Use.USED, packets=9))
    _, ntp = rules_view(HERE, Look(), found, None, NOON).sections
    assert [line.is_unused for line in ntp.lines] == [False, True]
    assert not ntp.is_unused


def test_what_is_not_known_is_not_called_unused() -> None:
    unknown = RuleUse(rule=HERE.rules[0], use=Use.UNKNOWN, why="allows are not recorded")
    line = rules_view(HERE, Look(), uses(one=unknown), None, NOON).sections[0].lines[0]
    assert not line.is_unused
    bare = rules_view(HERE, Look(), None, TroubleError("no store"), NOON)
    assert not any(line.is_unused for section in bare.sections for line in section.lines)


def test_of_many_destinations_some_are_shown() -> None:
    many = policy(rule("rules/many", *(f"n{n}.test" for n in range(50))))
    line = rules_view(many, Look(), None, None, NOON).sections[0].lines[0]
    assert (len(line.to), line.more_to) == (MAX_TO, 50 - MAX_TO)


def test_a_place_has_no_folder() -> None:
    here = policy(rule("rules/a", "a.test", origin=Origin("/etc/egressproxy/policy.yaml", 3)))
    assert rules_view(here, Look(), None, None, NOON).sections[0].lines[0].place == "policy.yaml:3"


@given(st.text(), st.text(), st.text(max_size=400))
def test_any_query_has_an_answer(days: str, kind: str, search: str) -> None:
    look = read_look({"days": days, "kind": kind, "search": search})
    assert rules_view(HERE, look, None, None, NOON).policy is HERE


# In a browser


def test_the_rules_in_a_browser(site: Site, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    tab.goto(site.url("/review/rules"))
    text = tab.locator("main").inner_text()
    assert "11 rules" in text
    assert "expired 2026-01-31" in text
    mcr = tab.get_by_role("row").filter(has_text="mcr.microsoft.com").first
    assert "flows" in mcr.inner_text()
    packages = tab.get_by_role("row").filter(has_text="packages.microsoft.com")
    assert "unused" in packages.inner_text()
    assert fits(tab)
    shoot(tab, "rules")


def test_a_count_leads_to_its_flows(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/rules"))
    tab.get_by_role("row").filter(has_text="mcr.microsoft.com").first.locator("td a").click()
    tab.wait_for_url("**/review/denies?**rule=**")
    assert "mcr.microsoft.com" in tab.locator("table.lines").inner_text()


def test_unused_by_hand(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/rules"))
    tab.get_by_label("Kinds").get_by_role("link", name="unused").click()
    tab.wait_for_url("**kind=unused")
    assert set(tab.locator("td.count").all_inner_texts()) == {"0"}
    tab.get_by_label("Search").fill("nothing.example")
    tab.get_by_role("button", name="Search").click()
    tab.wait_for_url("**search=nothing**")
    assert "No rule fits" in tab.locator("main").inner_text()


def test_a_requirement_leads_to_the_catalog(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/rules"))
    tab.get_by_role("link", name="aks/core").click()
    tab.wait_for_url("**/review/catalog**")
    assert tab.locator("h1").inner_text() == "aks/core"


def test_without_a_store_rules_are_shown_all_the_same(
    tmp_path: Path, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    with open_site(tmp_path) as site:
        tab.goto(site.url("/review/rules"))
        assert "--review-store" in tab.locator(".note").inner_text()
        assert "mcr.microsoft.com" in tab.locator("main").inner_text()
        shoot(tab, "rules-no-store")


def test_an_empty_policy(tmp_path: Path, tab: Page) -> None:
    text = "version: 1\ncloud: AzureCloud\nrules: []\n"
    with open_site(tmp_path, records=[], policy=text) as site:
        tab.goto(site.url("/review/rules"))
        assert "Everything is denied" in tab.locator("main").inner_text()


def test_a_phone(site: Site, chromium: Browser, complaints: list[str]) -> None:
    with new_tab(chromium, complaints, viewport=PHONE, has_touch=True) as page:
        page.goto(site.url("/review/rules"))
        assert fits(page)
    assert not complaints
