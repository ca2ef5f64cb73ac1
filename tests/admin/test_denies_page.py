"""The list of denies: where every link of it leads to, and all of it in a real browser."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.denies_page import PAGE_LINES, denies_view, line_link, wanted_lines
from egressproxy.admin.question import Question, read_question
from egressproxy.review.model import Class, Finding, Group, ReviewLine
from egressproxy.review.queries import NO_RULE, NO_TARGET, OVERFLOW, Totals
from egressproxy.review.report import Report
from tests.admin.chromium import HOSTILE, PHONE, fits, new_tab, open_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.admin.chromium import Site

NOW = 1_790_000_000.0


def asked(**query: str) -> Question:
    return read_question({key.rstrip("_"): [text] for key, text in query.items()}, NOW)


def again(link: str) -> Question:
    """The question that a link asks."""
    return read_question(parse_qs(urlsplit(link).query), NOW)


def a_line(key: str, count: int = 1) -> ReviewLine:
    return ReviewLine(key=key, count=count, first_at=NOW - 60, last_at=NOW, sources=1)


def report_of(lines: list[ReviewLine]) -> Report:
    totals = Totals(
        flows=sum(line.count for line in lines),
        subjects=len(lines),
        targets=len(lines),
        sources=1,
        gateways=1,
        first_at=None,
        last_at=None,
    )
    return Report(lines=tuple(lines), more=0, totals=totals)


def test_pages_lead_to_each_other() -> None:
    first = asked()
    lines = [a_line(f"n{number}.test", 200 - number) for number in range(wanted_lines(first))]
    view = denies_view(first, report_of(lines), {})
    assert (len(view.lines), view.before, again(view.after).page) == (PAGE_LINES, "", 2)
    second = denies_view(again(view.after), report_of(lines), {})
    assert [shown.line.key for shown in second.lines] == [f"n{PAGE_LINES}.test"]
    assert (again(second.before).page, second.after) == (1, "")


def test_bars_are_shares_of_the_largest_count() -> None:
    view = denies_view(
        asked(), report_of([a_line("a", 1000), a_line("b", 500), a_line("c", 1)]), {}
    )
    assert [shown.share for shown in view.lines] == [100, 50, 1]


LEADS = {
    Group.SOURCE: ("10.1.2.3", "sources"),
    Group.REASON: ("default_deny", "reasons"),
    Group.RULE: ("rules/no-telemetry", "rules"),
    Group.PORT: ("tls:8443", "ports"),
    Group.CLASS: ("near miss", "classes"),
    Group.GATEWAY: ("nva-1", "gateways"),
}


@pytest.mark.parametrize(("by", "key", "field"), [(by, *lead) for by, lead in LEADS.items()])
def test_a_line_leads_to_the_list_narrowed_to_it(by: Group, key: str, field: str) -> None:
    question = asked(group_by=by, since="7d", page="2")
    narrowed = again(line_link(question, a_line(key)))
    assert list(map(str, getattr(narrowed.where, field))) in (
        [key],
        [f"{key}/32"],
        [key.removeprefix("tls:")],
    )
    assert (narrowed.by, narrowed.page) == (Group.NAME, 1)
    assert narrowed.where.since == question.where.since


def test_a_name_leads_to_its_own_page_over_the_same_time() -> None:
    link = line_link(asked(since="7d"), a_line('<b>&"x'))
    assert urlsplit(link).path == "/review/name"
    assert parse_qs(urlsplit(link).query) == {"name": ['<b>&"x'], "since": ["7d"]}


def test_names_alike_lead_to_their_list() -> None:
    line = replace(a_line("*.t.exfil.example", 40), target_count=40)
    narrowed = again(line_link(asked(since="7d"), line))
    assert narrowed.where.names == ("*.t.exfil.example",)
    assert not narrowed.is_folded
    only = replace(line, target_count=1)  # somebody gave a star for a name
    assert urlsplit(line_link(asked(), only)).path == "/review/name"


@pytest.mark.parametrize("key", ["", NO_TARGET, OVERFLOW, NO_RULE])
def test_a_line_that_stands_for_no_key_leads_nowhere(key: str) -> None:
    assert line_link(asked(), a_line(key)) == ""


def test_classes_are_switches_with_their_counts() -> None:
    view = denies_view(
        asked(class_="suspicious"), report_of([]), {Class.SUSPICIOUS: 3, Class.UNKNOWN: 9}
    )
    on, off = view.classes
    assert (on.text, on.is_here, on.count) == ("suspicious", True, 3)
    assert again(on.link).where.classes == ()
    assert (off.text, off.is_here) == ("unknown", False)
    assert again(off.link).where.classes == (Class.SUSPICIOUS, Class.UNKNOWN)


def test_each_condition_can_be_taken_away() -> None:
    view = denies_view(asked(reason="no_sni,rule", port="443"), report_of([]), {})
    assert [way.text for way in view.conditions] == ["reason no_sni", "reason rule", "port 443"]
    assert again(view.conditions[0].link).where.reasons == ("rule",)
    assert again(view.conditions[2].link).where.ports == ()


def test_the_span_asked_for_is_marked() -> None:
    assert [
        way.text for way in denies_view(asked(since="7d"), report_of([]), {}).spans if way.is_here
    ] == ["7 days"]
    ended = asked(since="7d", until="1d")
    assert not [way for way in denies_view(ended, report_of([]), {}).spans if way.is_here]


texts = st.lists(st.text(max_size=40), max_size=3)


@given(
    st.dictionaries(st.sampled_from(["since", "from", "name", "group_by", "page", "class"]), texts)
)
def test_any_query_is_a_question_with_links(query: dict[str, list[str]]) -> None:
    question = read_question(query, NOW)
    finding = Finding(kind=Class.UNKNOWN)
    line = ReviewLine(
        key="\x1b\u202e'\"<", count=1, first_at=0, last_at=1, sources=1, finding=finding
    )
    view = denies_view(question, report_of([line]), {Class.UNKNOWN: 1})
    assert all(way.link.startswith("/review/") for way in (*view.spans, *view.classes))


# In a browser


def keys(page: Page) -> list[str]:
    return page.locator("table.lines td.key > :first-child").all_inner_texts()


def test_the_list_in_a_browser(site: Site, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    tab.goto(site.url("/review/denies"))
    assert tab.locator("h1").inner_text() == "Denies"
    assert keys(tab)[0] == "*.z1.blob.storage.azure.net"
    row = tab.get_by_role("row").filter(has_text="westeurope.monitoring.azure.com")
    assert "missing requirement" in row.inner_text()
    assert "aks/azure-monitor" in row.inner_text()
    assert tab.locator("th[aria-sort=descending]").inner_text() == "Flows"
    assert fits(tab)
    shoot(tab, "denies")


def test_a_form_is_a_short_url(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/denies"))
    tab.get_by_label("Name or address").fill("*.azure.com")
    tab.get_by_label("Name or address").press("Enter")
    tab.wait_for_url(lambda url: parse_qs(urlsplit(url).query) == {"name": ["*.azure.com"]})
    assert keys(tab) == ["westeurope.monitoring.azure.com"]
    tab.get_by_role("link", name="without name *.azure.com").click()
    tab.wait_for_url(site.url("/review/denies"))


def test_filters_hold_together(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/denies?since=7d&group_by=source"))
    tab.get_by_label("Reason").select_option("no_sni")
    tab.get_by_role("button", name="Filter").click()
    tab.wait_for_url("**reason=no_sni**")
    assert parse_qs(urlsplit(tab.url).query) == {
        "since": ["7d"],
        "reason": ["no_sni"],
        "group_by": ["source"],
    }
    assert all(key.startswith("10.244.") for key in keys(tab))
    assert tab.locator("form [name=since]").input_value() == "7d"


def test_classes_groups_orders_and_pages(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/denies"))
    tab.get_by_label("Classes").get_by_role("link", name=re.compile("near miss")).click()
    assert "mcr.mircosoft.com" in keys(tab)
    assert set(tab.locator("td.kind").all_inner_texts()) == {"near miss"}
    tab.get_by_role("link", name="Reason", exact=True).click()
    assert keys(tab) == ["default_deny"]
    tab.goto(site.url("/review/denies?fold=no"))
    tab.get_by_role("link", name="more →").click()
    tab.wait_for_url("**page=2")
    assert "page 2" in tab.locator(".pages").inner_text()
    tab.get_by_role("link", name="Class", exact=True).first.click()
    assert "page" not in urlsplit(tab.url).query
    tab.goto(site.url("/review/denies?order=class"))
    kinds = tab.locator("td.kind").all_inner_texts()
    assert kinds == sorted(kinds, key=[str(kind) for kind in Class].index)


def test_classes_count_the_same_flows_however_they_are_listed(site: Site, tab: Page) -> None:
    said = set()
    for by in ("name", "source", "requirement", "class"):
        tab.goto(site.url(f"/review/denies?group_by={by}"))
        said.add(tab.get_by_label("Classes").inner_text())
    assert len(said) == 1


def test_a_line_of_a_source_leads_to_its_names(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/denies?group_by=source"))
    source = keys(tab)[0]
    tab.locator("td.key a").first.click()
    tab.wait_for_url(f"**from={source}**")
    assert set(tab.locator("td.who").all_inner_texts()) == {source}


def test_what_cannot_be_read_is_said_beside_the_form(
    site: Site, tab: Page, shoot: Callable[[Page, str], None]
) -> None:
    tab.goto(site.url("/review/denies?reason=default_deni&from=10.0.0.0/99&name=x.example"))
    said = tab.get_by_role("alert").inner_text()
    assert "default_deny" in said
    assert "10.0.0.0/99" in said
    assert tab.locator("[name=from]").get_attribute("aria-invalid") == "true"
    assert tab.locator("[name=from]").input_value() == "10.0.0.0/99"
    shoot(tab, "denies-problems")


def test_the_files_have_the_same_lines(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/denies?class=missing-requirement"))
    shown = keys(tab)
    with tab.expect_download() as download:
        tab.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "deny-by-name.csv"
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(), newline="")))
    assert [row["name"] for row in rows] == shown
    answer = tab.request.get(site.url("/review/denies.json?class=missing-requirement"))
    assert [line["key"] for line in json.loads(answer.text())["lines"]] == shown


def test_names_alike_are_one_line_until_asked_for(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/denies"))
    row = tab.get_by_role("row").filter(has_text="*.z1.blob.storage.azure.net")
    assert "60 names" in row.inner_text()
    row.locator("td.key a").click()
    tab.wait_for_url("**?name=**")
    assert "md-hdd-0003.z1.blob.storage.azure.net" in tab.locator("table.lines").inner_text()
    tab.goto(site.url("/review/denies"))
    tab.get_by_role("link", name="Show each").click()
    tab.wait_for_url("**fold=no")
    assert "md-hdd-0003.z1.blob.storage.azure.net" in tab.locator("table.lines").inner_text()


def test_allows(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/denies?action=allow"))
    assert tab.locator("h1").inner_text() == "Allowed flows"
    assert "mcr.microsoft.com" in keys(tab)
    assert tab.locator("td.kind").count() == 0


def test_hostile_names_are_text(site: Site, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    tab.goto(site.url("/review/denies?name=*.evil.example"))
    assert len(keys(tab)) == len(HOSTILE)
    assert "owned" not in tab.title()
    assert tab.locator("main img, main script").count() == 0
    assert not re.search("[\u202e\u2066\x00\x1b]", tab.content())
    assert fits(tab)
    shoot(tab, "denies-hostile")
    text = tab.request.get(site.url("/review/denies.csv?name=*.evil.example")).text()
    assert not re.search("[\u202e\u2066\x00\x1b]", text)


def test_each_hostile_name_leads_to_its_own_page(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/denies?name=*.evil.example"))
    for link in [a.get_attribute("href") for a in tab.locator("td.key a").all()]:
        assert link is not None
        tab.goto(site.url(link))
        assert tab.locator(".figure b").first.inner_text() == "1"
        assert "owned" not in tab.evaluate("document.title.replace(/<.*>|\"><.*\"/g, '')")
        assert tab.locator("main img, main script").count() == 0
        assert fits(tab)


def test_a_phone_folds_the_filters(site: Site, chromium: Browser, complaints: list[str]) -> None:
    with new_tab(chromium, complaints, viewport=PHONE, has_touch=True) as page:
        page.goto(site.url("/review/denies"))
        assert fits(page)
        assert not page.get_by_label("Name or address").is_visible()
        page.locator("label.show-filters").tap()
        page.get_by_label("Name or address").fill("pypi.example")
        page.get_by_role("button", name="Filter").tap()
        page.wait_for_url("**?name=pypi.example")
        assert keys(page) == ["pypi.example"]
        assert fits(page)
    assert not complaints


def test_the_filters_of_a_phone_unfold_by_keyboard(
    site: Site, chromium: Browser, complaints: list[str]
) -> None:
    with new_tab(chromium, complaints, viewport=PHONE) as page:
        page.goto(site.url("/review/denies"))
        page.get_by_role("checkbox", name="Filters").focus()
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        page.keyboard.type("pypi.example")
        page.keyboard.press("Enter")
        page.wait_for_url("**?name=pypi.example")
        assert keys(page) == ["pypi.example"]
    assert not complaints


def test_without_scripts(site: Site, chromium: Browser, complaints: list[str]) -> None:
    with new_tab(chromium, complaints, java_script_enabled=False) as page:
        page.goto(site.url("/review/denies"))
        page.get_by_role("link", name="pypi.example").click()
        page.wait_for_url("**/review/name?name=pypi.example")
    assert not complaints


EMPTY = {
    "nothing was denied": ("/review/denies", "Nothing was denied in this time"),
    "nothing fits": ("/review/denies?name=x.example", "How x.example would be judged"),
    "no allow": ("/review/denies?action=allow", "--log-allows"),
}


def test_empty_states(tmp_path: Path, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    with open_site(tmp_path, records=[]) as empty:
        for path, text in EMPTY.values():
            tab.goto(empty.url(path))
            assert text in tab.locator("main").inner_text()
        shoot(tab, "denies-empty")
