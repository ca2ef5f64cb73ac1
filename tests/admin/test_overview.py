"""The overview in a real browser: a day's denies at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.admin.chromium import fits

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.admin.chromium import Site


def test_a_day(site: Site, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    tab.goto(site.url("/"))
    assert tab.url == site.url("/review")
    assert tab.locator("h1").inner_text() == "Denied in the last 24 hours"
    assert fits(tab)
    shoot(tab, "overview")
