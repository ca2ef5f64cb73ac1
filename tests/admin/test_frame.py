"""What stands around every page."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from egressproxy.admin.frame import NAVIGATION
from egressproxy.service.report import Outcome, ReloadReport
from tests.admin.chromium import a_deny, fits, open_site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.admin.chromium import Site


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path, records=[a_deny("x.example")]) as opened:
        yield opened


@pytest.mark.parametrize("path", [path for path, _ in NAVIGATION])
def test_every_page_of_the_navigation_is_there_and_says_where_one_is(
    site: Site, tab: Page, path: str
) -> None:
    answer = tab.goto(site.url(path))
    assert answer is not None
    assert answer.status == 200
    assert tab.locator("nav [aria-current=page]").get_attribute("href") == path
    assert tab.locator("h1").count() == 1
    assert tab.locator("main").count() == 1
    assert "egressproxy" in tab.title()
    assert fits(tab)


def test_the_state_of_the_service(gateway: Site, tab: Page) -> None:
    header = tab.locator("header")
    tab.goto(gateway.url("/review/reloads"))
    assert header.get_by_text("enforce").is_visible()
    assert header.get_by_text("policy").is_visible()
    assert header.locator(".alarm").count() == 0
    gateway.supervisor.is_ready = False
    gateway.supervisor.note(
        ReloadReport(outcome=Outcome.REFUSED, triggers=(), at=0.0, digest="d", error="bad")
    )
    tab.reload()
    assert header.get_by_text("last reload refused").is_visible()
    assert header.get_by_text("not ready: serving").is_visible()


def test_a_gateway_s_name_is_text(gateway: Site, tab: Page) -> None:
    supervisor = gateway.supervisor
    supervisor.options = replace(supervisor.options, gateway="<b>nva</b>")
    tab.goto(gateway.url("/review/reloads"))
    assert tab.locator("header").get_by_text("<b>nva</b>").is_visible()


def test_an_address_that_is_none(
    gateway: Site, tab: Page, complaints: list[str], shoot: Callable[[Page, str], None]
) -> None:
    tab.goto(gateway.url("/review/<script>x</script>"))
    tab.get_by_role("heading", name="Not Found").wait_for()
    assert tab.locator("nav").is_visible()
    shoot(tab, "not-found")
    complaints.clear()


def test_a_policy_of_an_inline_style_or_script_would_be_refused(gateway: Site, tab: Page) -> None:
    tab.goto(gateway.url("/review"))
    assert tab.locator("[style], [onclick], script:not([src]), style").count() == 0
    policy = tab.request.get(gateway.url("/review")).headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")
