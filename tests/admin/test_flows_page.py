"""Flows now: which, in which order, and the page in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.flows_page import MAX_SHOWN, Look, flows_view, read_look
from tests.admin.chromium import HOSTILE, fits, open_site
from tests.admin.open_flows import an_afternoon, an_open_flow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.admin.chromium import Site

NOW = 1_790_000_000.0

LOOKS: dict[str, tuple[dict[str, str], Look]] = {
    "nothing said": ({}, Look()),
    "all said": (
        {"kind": "konnectivity", "order": "idle", "search": " 10.240.0.4 "},
        Look("konnectivity", "idle", "10.240.0.4"),
    ),
    "words that are none": ({"kind": "x", "order": "y"}, Look()),
}


@pytest.mark.parametrize(("query", "look"), LOOKS.values(), ids=LOOKS.keys())
def test_what_a_url_asks_for(query: dict[str, str], look: Look) -> None:
    assert read_look(query) == look


KINDS = {
    "all": 14,
    "tunnels": 5,
    "konnectivity": 5,
    "audit": 1,
    "on their way": 1,
    "by the kernel": 1,
}


@pytest.mark.parametrize(("kind", "count"), KINDS.items())
def test_kinds(kind: str, count: int) -> None:
    view = flows_view(an_afternoon(), Look(kind=kind), NOW)
    assert (view.matched, view.total) == (count, 14)
    assert [way.count for way in view.kinds] == list(KINDS.values())
    assert [way.text for way in view.kinds if way.is_here] == [kind]


SEARCHES = {
    "a name": ("HCP.westeurope", 5),
    "a client": ("10.244.1.3", 1),
    "an ALPN": ("konnectivity", 5),
    "a rule": ("rules/sql", 1),
    "a port": ("tcp:1433", 1),
    "nothing there": ("nothing.example", 0),
}


@pytest.mark.parametrize(("search", "count"), SEARCHES.values(), ids=SEARCHES.keys())
def test_searches(search: str, count: int) -> None:
    assert flows_view(an_afternoon(), Look(search=search), NOW).matched == count


def test_orders() -> None:
    flows = an_afternoon()
    oldest = flows_view(flows, Look(), NOW).flows
    assert [view.flow.src_ip for view in oldest[:2]] == ["10.240.0.8", "10.240.0.7"]
    assert oldest[-1].flow.worker is None
    quietest = flows_view(flows, Look(order="idle"), NOW).flows
    assert quietest[0].flow.idle_s == 32.0
    busiest = flows_view(flows, Look(order="bytes"), NOW).flows
    assert busiest[0].flow.bytes_down == 17_400_000


def test_a_long_flow_is_a_tunnel_without_any_alpn() -> None:
    found = flows_view([an_open_flow(age_s=601.0, alpn=())], Look(), NOW)
    assert (found.tunnels, found.konnectivity) == (1, 0)


def test_very_many_are_cut() -> None:
    view = flows_view([an_open_flow() for _ in range(MAX_SHOWN + 1)], Look(), NOW)
    assert (len(view.flows), view.matched) == (MAX_SHOWN, MAX_SHOWN + 1)


@given(st.text(), st.text(), st.text(max_size=400))
def test_any_query_has_an_answer(kind: str, order: str, search: str) -> None:
    look = read_look({"kind": kind, "order": order, "search": search})
    assert flows_view(an_afternoon(HOSTILE), look, NOW).total == 14 + len(HOSTILE)


# In a browser


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Site]:
    with open_site(tmp_path) as site:  # needs no store
        site.supervisor.flows = an_afternoon(HOSTILE)
        yield site


def test_tunnels_are_seen(busy: Site, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    tab.goto(busy.url("/review/flows"))
    first = tab.locator("table.lines tbody tr").first.inner_text()
    assert "konnectivity" in first
    assert "8 h" in first
    assert "waiting for the hello" in tab.locator("table.lines").inner_text()
    assert fits(tab)
    shoot(tab, "flows")


def test_hostile_names_and_alpn_are_text(busy: Site, tab: Page) -> None:
    tab.goto(busy.url("/review/flows"))
    assert tab.title().startswith("Flows now")
    assert tab.locator("main img, main script, td b").count() == 0
    assert "<script>document.title='owned'</script>.evil.example" in (
        tab.locator("main").inner_text().replace("\n", "")
    )
    assert not re.search("[\u202e\u2066\x00\x1b]", tab.content())


def test_kinds_orders_and_search_by_hand(busy: Site, tab: Page) -> None:
    tab.goto(busy.url("/review/flows"))
    tab.get_by_label("Kinds").get_by_role("link", name="konnectivity 5").click()
    tab.wait_for_url("**kind=konnectivity")
    assert tab.locator("table.lines tbody tr").count() == 5
    tab.get_by_role("link", name="Idle").click()
    tab.wait_for_url("**order=idle")
    tab.get_by_label("Search").fill("10.240.0.6")
    tab.get_by_role("button", name="Search").click()
    tab.wait_for_url("**search=10.240.0.6**")
    assert tab.locator("table.lines tbody tr").count() == 1
    assert "kind=konnectivity" in tab.url
    tab.get_by_label("Search").fill("nothing.example")
    tab.get_by_role("button", name="Search").click()
    assert "No open flow fits" in tab.locator("main .empty").inner_text()


def test_nobody_is_connected(tmp_path: Path, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    with open_site(tmp_path) as site:
        tab.goto(site.url("/review/flows"))
        assert "No flow is open" in tab.locator("main").inner_text()
        shoot(tab, "flows-empty")
