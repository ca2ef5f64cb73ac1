"""The overview in a real browser: a day's denies at a glance."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, cast

import pytest

from egressproxy.admin.overview import DEFAULT_SPAN, SPANS, Kept, overview_view, span_of
from egressproxy.admin.review_data import Review
from egressproxy.review.behaviour import Behaviour
from egressproxy.review.bounds import Bounds
from egressproxy.review.classify import Classifier
from egressproxy.review.model import Class
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from tests.admin.chromium import PHONE, a_day, a_deny, fits, new_tab, open_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from egressproxy.admin.overview import OverviewView
    from tests.admin.chromium import Site


def test_a_day(site: Site, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    tab.goto(site.url("/"))
    assert tab.url == site.url("/review")
    assert tab.locator("h1").inner_text() == "Denied in the last 24 hours"
    figures = [int(text.replace(",", "")) for text in tab.locator(".figure b").all_inner_texts()]
    flows, names, clients = figures[:3]
    assert flows > names > 0
    assert clients > 100
    assert tab.locator(".plot svg.only-wide .bucket").count() >= 24
    assert tab.locator("header").get_by_text("hub-nva-1").is_visible()
    assert fits(tab)
    shoot(tab, "overview")


def test_what_people_see_meanwhile_is_told(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review"))
    told = tab.locator(".reason .symptom").all_inner_texts()
    assert told
    for row in tab.locator("tr:has(.reason .symptom)").all():
        name = row.locator(".wanted a").inner_text()
        page = tab.context.new_page()
        page.goto(site.url(f"/review/name?name={name}"))
        assert row.locator(".symptom").inner_text() in page.locator("main").inner_text()
        page.close()


def test_what_stands_together_says_the_same(site: Site, tab: Page) -> None:
    """Figures, plot and legend are of the same flows."""
    tab.goto(site.url("/review"))
    (flows,) = re.findall(r"[\d,]+", tab.locator(".figure b").first.inner_text())
    titles = tab.locator(".plot svg.only-wide title").all_text_contents()
    plotted = sum(int(re.findall(r"([\d,]+) denied", t)[0].replace(",", "")) for t in titles)
    legend = tab.locator(".legend").inner_text()
    said = sum(int(text.replace(",", "")) for text in re.findall(r"([\d,]+) flow", legend))
    assert int(flows.replace(",", "")) == said
    # The first bucket began before the span did.
    assert plotted >= said


@pytest.mark.parametrize("span", SPANS, ids=lambda span: span.text)
def test_spans(site: Site, tab: Page, span: object) -> None:
    tab.goto(site.url("/review"))
    tab.get_by_role("link", name=span.text, exact=True).click()  # type: ignore[attr-defined]
    tab.wait_for_url(f"**since={span.text}")  # type: ignore[attr-defined]
    assert span.words in tab.locator("h1").inner_text()  # type: ignore[attr-defined]
    assert tab.locator(".choices [aria-current]").inner_text() == span.text  # type: ignore[attr-defined]
    assert tab.locator(".plot svg.only-wide .bucket").count() >= 1


def test_every_link_leads_to_a_page(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review"))
    hrefs = {a.get_attribute("href") or "" for a in tab.locator("main a").all()}
    kinds = {href.partition("?")[0]: href for href in sorted(hrefs)}
    assert {"/review/denies", "/review/name"} <= set(kinds)
    for href in kinds.values():
        assert tab.request.get(site.url(href)).status == 200, href


def test_a_bar_leads_to_the_denies_of_its_time(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review"))
    tab.locator(".plot svg.only-wide a").nth(12).click()
    tab.wait_for_url("**/review/denies?since=**")
    assert "until=" in tab.url


def test_hostile_names_are_text(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review"))
    assert "owned" not in tab.title()
    assert tab.locator("main img, main script").count() == 0
    shown = tab.locator("main").inner_text()
    assert "<script>document.title='owned'</script>.evil.example" in shown
    assert "{{ 7 * 7 }}{% raw %}" in shown
    assert "\\u202egpj" in shown
    assert not re.search("[\u202e\u2066\x00\x1b]", tab.content())


def test_a_phone(site: Site, chromium: Browser, complaints: list[str]) -> None:
    with new_tab(chromium, complaints, viewport=PHONE, has_touch=True) as page:
        page.goto(site.url("/review"))
        assert fits(page)
        assert page.locator("svg.only-narrow").is_visible()
        assert not page.locator("svg.only-wide").is_visible()
        sizes = page.locator("svg.only-narrow text").all()
        assert sizes[0].bounding_box()["height"] > 8  # type: ignore[index]
    assert not complaints


def test_by_keyboard(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review"))
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "content"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent.trim()") == "1h"
    assert "Overview" in tab.locator("nav [aria-current=page]").inner_text()


def test_nothing_is_recorded_yet(
    tmp_path: Path, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    with open_site(tmp_path, records=[]) as empty:
        tab.goto(empty.url("/review"))
        assert "nothing is recorded yet" in tab.locator("main").inner_text()
        shoot(tab, "overview-empty")


def test_nothing_was_denied_in_this_time(tmp_path: Path, tab: Page) -> None:
    with open_site(tmp_path, records=[a_deny("x.example", time=time.time() - 5 * 86400)]) as calm:
        tab.goto(calm.url("/review?since=24h"))
        assert "Nothing was denied in this time" in tab.locator("main").inner_text()
        tab.goto(calm.url("/review?since=7d"))
        assert "x.example" in tab.locator("main").inner_text()


def test_without_a_store_it_says_how_to_have_one(
    tmp_path: Path, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    with open_site(tmp_path) as bare:
        tab.goto(bare.url("/review"))
        said = tab.locator("main").inner_text()
        assert "This gateway keeps no review store" in said
        assert "--review-store" in said
        assert tab.locator("nav").is_visible()
        shoot(tab, "no-store")


def test_before_the_policy_is_loaded(tmp_path: Path, tab: Page) -> None:
    with open_site(tmp_path, records=[a_deny("x.example")]) as starting:
        starting.supervisor.crew = None
        starting.supervisor.is_ready = False
        tab.goto(starting.url("/review"))
        assert tab.locator("header").get_by_text("no policy loaded yet").is_visible()
        assert "x.example" in tab.locator("main").inner_text()


# Without a browser


@pytest.mark.parametrize("text", ["", "2h", "24h; DROP", "1H", "9" * 100])
def test_a_span_that_is_none(text: str) -> None:
    assert span_of({"since": text}) is DEFAULT_SPAN


@pytest.mark.parametrize(
    ("cost_s", "age_s", "is_fresh"),
    [(0.1, 0.0, False), (2.0, 7.9, True), (2.0, 8.1, False), (90.0, 61.0, False), (2.0, -1, False)],
    ids=["cheap", "dear", "old", "very dear", "the clock was set back"],
)
def test_a_dear_view_is_kept_for_a_while(cost_s: float, age_s: float, is_fresh: bool) -> None:
    kept = Kept(cast("OverviewView", None), made_at=1000.0, cost_s=cost_s)
    assert kept.is_fresh(1000.0 + age_s) is is_fresh


def test_the_view_adds_up(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "r.db")) as store:
        Writer(store, gateway="one", bounds=Bounds()).add(a_day(500))
        review = Review(
            store=store,
            classifier=Classifier(None, None, Behaviour(), now=time.time()),
            policy=None,
            ruleset=None,
            now=time.time(),
        )
        view = overview_view(review, span=DEFAULT_SPAN)
    assert sum(each.flows for each in view.classes) == view.totals.flows
    kinds = [each.kind for each in view.classes]
    assert kinds == [kind for kind in Class if kind in kinds]
    for each in view.classes:
        assert sum(line.flows for line in each.lines) <= each.flows
        assert len({target for line in each.lines for target in line.targets}) <= each.names
        assert bool(each.more) is (sum(line.flows for line in each.lines) < each.flows)
    assert view.newest_id == view.newest[0][0].id
    assert not view.is_cut
    assert not view.is_empty


def test_a_tunnel_is_one_line_however_many_names_it_has(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review"))
    rows = tab.locator(".by-class tbody").first.locator("tr")
    assert "suspicious" in rows.first.inner_text()
    (tunnel,) = [text for text in rows.all_inner_texts() if "exfil.example" in text]
    assert re.search(r"and \d\d more", tunnel)
