"""One name's page: what is asked of the store, and the page in a real browser."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from egressproxy.admin.name_page import normal
from tests.admin.chromium import a_deny, fits, open_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.admin.chromium import Site

NORMAL = {
    "upper case": ("MCR.Microsoft.com", "mcr.microsoft.com"),
    "a trailing dot": ("one.test.", "one.test"),
    "an address": ("203.0.113.7", "203.0.113.7"),
    "no host name": ("A b<c>", "A b<c>"),
    "blanks around": ("  one.test ", "one.test"),
}


@pytest.mark.parametrize(("text", "name"), NORMAL.values(), ids=NORMAL.keys())
def test_a_name_is_looked_up_as_records_have_it(text: str, name: str) -> None:
    assert normal(text) == name


def test_a_missing_requirement(site: Site, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    tab.goto(site.url("/review/name?name=westeurope.monitoring.azure.com"))
    assert tab.locator("h1").inner_text() == "westeurope.monitoring.azure.com"
    head = tab.locator("main .head").inner_text()
    assert "missing requirement" in head
    assert "aks/azure-monitor" in head
    denied, allowed, clients = tab.locator(".figure b").all_inner_texts()[:3]
    assert int(denied.replace(",", "")) > 100
    assert (allowed, clients) == ("0", "20")
    assert tab.locator(".way h3").inner_text().startswith("denied")
    assert tab.locator("pre.copy").inner_text() == "requirements:\n  - aks/azure-monitor"
    assert tab.locator(".plot svg.only-wide .bucket").count() > 10
    assert tab.locator("table.records tbody tr").count() == 25
    assert fits(tab)
    shoot(tab, "name-missing")


def test_the_yaml_is_selected_by_one_click(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/name?name=westeurope.monitoring.azure.com"))
    tab.locator("pre.copy").click()
    selected = tab.evaluate("getSelection().toString().trim()")
    assert selected == "requirements:\n  - aks/azure-monitor"


def test_a_misspelt_name_is_warned_of(
    site: Site, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    tab.goto(site.url("/review/name?name=mcr.mircosoft.com"))
    assert "near miss" in tab.locator("main .head").inner_text()
    assert "sure that this is the name you mean" in tab.locator("main").inner_text()
    assert tab.locator("pre.copy").count() == 0
    shoot(tab, "name-misspelt")


def test_what_the_policy_allows_by_now_is_said(site: Site, tab: Page) -> None:
    """Its records say expired; the rule above it covers it."""
    tab.goto(site.url("/review/name?name=legacy.partner.example"))
    way = tab.locator(".way").first.inner_text()
    assert way.startswith("allowed")
    assert "the policy has changed since" in way
    assert "it goes through" in tab.locator("main").inner_text()
    assert "rules/partner" in way


def test_flows_that_audit_let_pass(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/name?name=audited.example"))
    assert "audit" in tab.locator("table.records").inner_text()


def test_an_address(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/name?name=203.0.113.3"))
    assert "no_sni" in tab.locator(".way").first.inner_text()


def test_a_name_that_nobody_asked_for_is_judged_all_the_same(
    site: Site, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    tab.goto(site.url("/review/name?name=GIST.github.com"))
    assert tab.locator("h1").inner_text() == "gist.github.com"
    assert "Nobody asked for it" in tab.locator("main").inner_text()
    assert "rules/no-gists" in tab.locator(".way").inner_text()
    assert "denies it on purpose" in tab.locator(".note").inner_text()
    shoot(tab, "name-nobody")
    tab.goto(site.url("/review/name?name=packages.microsoft.com"))
    assert tab.locator(".way").inner_text().startswith("allowed")


def test_the_span_and_the_plot_lead_to_the_same_name(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/name?name=pypi.example"))
    tab.get_by_role("link", name="7 days").click()
    assert parse_qs(urlsplit(tab.url).query) == {"name": ["pypi.example"], "since": ["7d"]}
    tab.locator(".plot svg.only-wide a").last.click()
    tab.wait_for_url("**until=**")
    assert parse_qs(urlsplit(tab.url).query)["name"] == ["pypi.example"]


def test_no_name_leads_to_the_list(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/name"))
    assert tab.url == site.url("/review/denies")


def test_a_star_means_itself(tmp_path: Path, tab: Page) -> None:
    """An imported log may have one in a name; a page of it is of no other name."""
    now = time.time()
    records = [a_deny("*.evil.example", time=now - 9), a_deny("x.evil.example", time=now - 8)]
    with open_site(tmp_path, records=records) as site:
        tab.goto(site.url(f"/review/name?name={quote('*.evil.example')}"))
        assert tab.locator(".figure b").first.inner_text() == "1"
        assert tab.locator("table.records tbody tr").count() == 1


def test_a_homoglyph_is_spelled_out(
    tmp_path: Path, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    with open_site(tmp_path, records=[a_deny("xn--mr-omc.microsoft.com")]) as site:
        tab.goto(site.url("/review/name?name=xn--mr-omc.microsoft.com"))
        assert "cyrillic small letter" in tab.locator("main .head").inner_text()
        shoot(tab, "name-homoglyph")
