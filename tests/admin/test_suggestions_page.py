"""Suggestions: what the URL chooses, the YAML, and the page in a real browser."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.suggestions_page import MAX_OFFERS, Choice, joined, key_of, read_choice
from egressproxy.policy.load import load_policy
from egressproxy.review.suggestion import Evidence, Kind, Suggestion
from tests.admin.chromium import PHONE, a_deny, fits, new_tab, open_site
from tests.admin.double import CLUSTER_POLICY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.admin.chromium import Site


def a_suggestion(title: str, section: str, *entry: str) -> Suggestion:
    evidence = Evidence(
        flows=1,
        targets=(title,),
        target_count=1,
        sources=("10.0.0.4",),
        source_count=1,
        first_at=0.0,
        last_at=1.0,
    )
    return Suggestion(
        kind=Kind.NAME, title=title, why="", evidence=evidence, section=section, entry=entry
    )


CHOICES: dict[str, tuple[dict[str, list[str]], Choice]] = {
    "nothing said": ({}, Choice(span="7d")),
    "a span": ({"since": ["24h"]}, Choice(span="24h")),
    "a span that is none": ({"since": ["7 years"]}, Choice(span="7d")),
    "some": ({"pick": ["aa", "bb"]}, Choice(span="7d", picks=frozenset({"aa", "bb"}))),
    "a form without a tick": ({"chosen": ["1"]}, Choice(span="7d", picks=frozenset())),
}


@pytest.mark.parametrize(("query", "choice"), CHOICES.values(), ids=CHOICES.keys())
def test_what_a_url_chooses(query: dict[str, list[str]], choice: Choice) -> None:
    assert read_choice(query) == choice


def test_a_choice_of_too_many_is_cut() -> None:
    picks = read_choice({"pick": [str(number) for number in range(5000)]}).picks
    assert picks is not None
    assert len(picks) == MAX_OFFERS


def test_items_stand_once_in_each_section() -> None:
    found = [
        a_suggestion("aks/ntp", "requirements", "- aks/ntp"),
        a_suggestion("a.test", "rules", "- name: a", "  to: [a.test]", "  ports: [https]"),
        a_suggestion("acr", "requirements", "- acr: {registry: mine5}"),
    ]
    assert joined(found) == (
        "rules:\n  - name: a\n    to: [a.test]\n    ports: [https]\n"
        "requirements:\n  - aks/ntp\n  - acr: {registry: mine5}\n"
    )
    assert joined([]) == ""


@given(st.text(max_size=60))
def test_a_key_is_short_and_tells_suggestions_apart(title: str) -> None:
    one = key_of(a_suggestion(title, "rules"))
    assert len(one) == 8
    assert one.isalnum()
    assert key_of(a_suggestion(title + "x", "rules")) != one


# In a browser


def test_everything_is_tried_at_first(
    site: Site, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    tab.goto(site.url("/review/suggestions"))
    assert tab.locator(".offers .key label").first.inner_text() == "aks/azure-monitor"
    boxes = tab.locator(".offers input[type=checkbox]")
    assert boxes.count() == tab.locator(".offers input:checked").count() > 10
    result = tab.locator(".result").inner_text()
    assert "Newly denied\n0 flows" in result
    assert "mcr.mircosoft.com" not in result
    assert fits(tab)
    shoot(tab, "suggestions")


def test_requirements_alone(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/suggestions"))
    tab.get_by_role("link", name="requirements").click()
    tab.wait_for_url("**pick=**")
    yaml = tab.locator("pre.tall").inner_text().strip()
    assert yaml == "requirements:\n  - aks/azure-monitor: {from: [lab]}"
    targets = tab.locator(".result tbody td:first-child a").all_inner_texts()
    assert set(targets) == {"westeurope.monitoring.azure.com", "dc.services.visualstudio.com"}


def test_ticks_are_tried_and_stay_in_the_url(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/suggestions?chosen=1"))
    assert "None is chosen" in tab.locator(".result").inner_text()
    tab.get_by_label("pypi.example").check()
    tab.get_by_role("button", name="Try the ticked ones").click()
    tab.wait_for_url("**pick=**")
    assert len(parse_qs(urlsplit(tab.url).query)["pick"]) == 1
    assert tab.get_by_label("pypi.example").is_checked()
    assert tab.locator(".result tbody td:first-child a").all_inner_texts() == ["pypi.example"]


def test_the_yaml_is_a_file_to_include(site: Site, tab: Page, tmp_path: Path) -> None:
    tab.goto(site.url("/review/suggestions"))
    (tmp_path / "suggested.yaml").write_text(tab.locator("pre.tall").inner_text() + "\n")
    policy = tmp_path / "policy.yaml"
    policy.write_text(CLUSTER_POLICY + "include: [suggested.yaml]\n")
    assert "aks/azure-monitor" in load_policy(policy).requirements


def test_what_is_not_suggested_says_why(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/suggestions"))
    tab.get_by_text("the commonest first").click()
    row = tab.get_by_role("row").filter(has_text="mcr.mircosoft.com")
    assert "spelt" in row.inner_text() or "has 'microsoft'" in row.inner_text()
    assert tab.locator("main img, main script").count() == 0
    assert fits(tab)


def test_a_phone(site: Site, chromium: Browser, complaints: list[str]) -> None:
    with new_tab(chromium, complaints, viewport=PHONE, has_touch=True) as page:
        page.goto(site.url("/review/suggestions?chosen=1"))
        assert fits(page)
        page.get_by_label("npm.example").tap()
        page.get_by_role("button", name="Try the ticked ones").tap()
        page.wait_for_url("**pick=**")
        assert "npm.example" in page.locator(".result").inner_text()
    assert not complaints


def test_empty_states(tmp_path: Path, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    denied_on_purpose = a_deny("gist.github.com", rule="rules/no-gists", time=time.time() - 60)
    with open_site(tmp_path, records=[]) as site:
        tab.goto(site.url("/review/suggestions"))
        assert "No flow is recorded in this time" in tab.locator("main").inner_text()
        assert site.writer is not None
        site.writer.add([denied_on_purpose])
        tab.goto(site.url("/review/suggestions"))
        assert "Nothing to suggest" in tab.locator("main").inner_text()
        shoot(tab, "suggestions-empty")
        site.supervisor.crew = None
        tab.goto(site.url("/review/suggestions"))
        assert "The policy is not loaded yet" in tab.locator("main").inner_text()
