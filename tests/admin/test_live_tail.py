"""The live tail in a real browser: what is denied while a page is open appears on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.admin.chromium import HOSTILE, a_deny, new_tab, open_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.admin.chromium import Site


@pytest.fixture
def quiet_site(tmp_path: Path) -> Iterator[Site]:
    """A store with one deny, of an hour ago."""
    with open_site(tmp_path, records=[a_deny("old.example", time=time.time() - 3600)]) as opened:
        yield opened


def test_a_deny_appears_without_loading_the_page_again(quiet_site: Site, tab: Page) -> None:
    tab.goto(quiet_site.url("/review"))
    tab.get_by_role("status").get_by_text("live").wait_for()
    assert tab.locator("[data-live] tbody tr").count() == 1
    quiet_site.deny("fresh.example", count=3)
    row = tab.locator("[data-live] tbody tr.fresh")
    row.wait_for()
    assert "fresh.example \u00d73" in row.inner_text()
    assert "10.244.3.14" in row.inner_text()
    assert row.locator("a").get_attribute("href") == "/review/name?name=fresh.example"
    assert tab.locator("[data-live] tbody tr").first.get_attribute("class") == "fresh"


def test_pause(quiet_site: Site, tab: Page) -> None:
    tab.goto(quiet_site.url("/review"))
    tab.get_by_role("status").get_by_text("live").wait_for()
    tab.get_by_role("button", name="Pause").click()
    tab.get_by_role("status").get_by_text("paused").wait_for()
    quiet_site.deny("meanwhile.example")
    tab.get_by_role("button", name="Resume").click()
    tab.locator("tr.fresh").get_by_text("meanwhile.example").wait_for()


def test_hostile_names_are_text(quiet_site: Site, tab: Page) -> None:
    tab.goto(quiet_site.url("/review"))
    tab.get_by_role("status").get_by_text("live").wait_for()
    title = tab.title()
    for name in HOSTILE:
        quiet_site.deny(name)
    tab.locator("tr.fresh").nth(len(HOSTILE) - 1).wait_for()
    assert tab.title() == title
    assert tab.locator("[data-live] img, [data-live] script").count() == 0
    assert tab.locator("tr.fresh", has_text="<script>document.title").count() == 1
    assert tab.locator("tr.fresh", has_text="\\u202egpj").count() == 1


def test_without_javascript_the_page_is_whole(
    quiet_site: Site, chromium: Browser, complaints: list[str]
) -> None:
    with new_tab(chromium, complaints, java_script_enabled=False) as page:
        page.goto(quiet_site.url("/review"))
        assert page.locator("[data-live] tbody tr").count() == 1
        assert page.locator(".live").count() == 0
    assert not complaints
