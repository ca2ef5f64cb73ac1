"""The catalog's page: what it lists, finds and shows of one requirement, for any query."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.catalog_page import CatalogView, catalog_view
from egressproxy.catalog import CLOUDS, load_catalog
from egressproxy.policy.load import load_policy
from egressproxy.policy.rules import Policy
from tests.admin.chromium import fits

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.admin.chromium import Site

POLICY = """\
version: 1
cloud: AzureCloud
sources: {a: [10.1.0.0/16], b: [10.2.0.0/16]}
parameters: {location: japaneast}
requirements:
  - aks/core: {from: [a]}
  - aks/core: {from: [b]}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return load_policy(file)


def ids(view: CatalogView) -> set[str]:
    return {item.requirement.id for item in view.items}


def found_rows(view: CatalogView) -> set[str]:
    assert view.chosen is not None
    return {row.line.row.id for row in view.chosen.rows if row.is_found}


def test_without_a_query_it_lists_what_the_policys_cloud_has(policy: Policy) -> None:
    view = catalog_view({}, policy)
    assert (view.cloud, view.chosen, view.unknown) == ("AzureCloud", None, "")
    assert {"aks/core", "acr", "aks/istio"} <= ids(view)
    assert [item.requirement.id for item in view.items if item.is_included] == ["aks/core"]
    assert "aks/istio" not in ids(catalog_view({"cloud": "AzureChinaCloud"}, policy))


SEARCHES = {
    "a host name, by exact row": ("mcr.microsoft.com", "aks/core", "aks/core#mcr"),
    "a host name, by wildcard": ("md-abc123.blob.storage.azure.net", "aks/core", "#managed-disks"),
    "a host name, by a row with a parameter": ("x.hcp.japaneast.azmk8s.io", "aks/core", "#api-"),
    "a word of a purpose": ("konnectivity", "aks/core", "aks/core#api-server"),
    "a port": ("udp:123", "aks/ntp", "aks/ntp#"),
    "words in any case": ("MICROSOFT registry", "aks/core", "aks/core#mcr"),
}


@pytest.mark.parametrize(("search", "requirement", "row"), SEARCHES.values(), ids=SEARCHES.keys())
def test_a_search_finds_requirements_and_marks_rows(
    search: str, requirement: str, row: str
) -> None:
    assert requirement in ids(catalog_view({"search": search}, None))
    view = catalog_view({"search": search, "requirement": requirement}, None)
    assert any(row in found for found in found_rows(view))


def test_a_search_that_finds_nothing_lists_nothing() -> None:
    assert not catalog_view({"search": "no-such-thing.example"}, None).items


def test_a_requirement_is_shown_whole_with_the_rules_it_became(policy: Policy) -> None:
    chosen = catalog_view({"requirement": "aks/core"}, policy).chosen
    assert chosen is not None
    assert chosen.is_included
    rules = {row.line.row.id: row.rules for row in chosen.rows}
    assert rules["aks/core#mcr"] == ("aks/core#mcr@a", "aks/core#mcr@b")
    assert rules["aks/core#managed-disks"] == ()
    assert all(1 <= row.source <= len(chosen.sources) for row in chosen.rows)
    assert "location: japaneast" in [choice.text for choice in chosen.choices]


def test_another_cloud_has_none_of_the_policys_rules(policy: Policy) -> None:
    chosen = catalog_view({"requirement": "aks/core", "cloud": "AzureChinaCloud"}, policy).chosen
    assert chosen is not None
    assert not any(row.rules for row in chosen.rows)


def test_a_requirement_that_a_cloud_lacks_says_what_to_do() -> None:
    query = {"requirement": "aks/istio", "cloud": "AzureChinaCloud"}
    chosen = catalog_view(query, None).chosen
    assert chosen is not None
    assert not chosen.rows
    assert chosen.absent


def test_an_unknown_requirement_is_told() -> None:
    assert catalog_view({"requirement": "aks/nope"}, None).unknown == "aks/nope"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_yaml_of_every_requirement_loads(tmp_path: Path, cloud: str) -> None:
    for requirement in load_catalog().requirements:
        if cloud not in requirement.clouds:
            continue
        chosen = catalog_view({"requirement": requirement.id, "cloud": cloud}, None).chosen
        assert chosen is not None
        file = tmp_path / "policy.yaml"
        file.write_text(f"version: 1\ncloud: {cloud}\n{chosen.yaml}")
        assert load_policy(file).requirements == (requirement.id,)


@given(st.text(max_size=300), st.text(max_size=30), st.text(max_size=30))
def test_any_query_has_an_answer(search: str, cloud: str, requirement: str) -> None:
    view = catalog_view({"search": search, "cloud": cloud, "requirement": requirement}, None)
    assert view.cloud in CLOUDS


# In a browser


def test_browsing(site: Site, tab: Page, shoot: Callable[[Page, str], None]) -> None:
    tab.goto(site.url("/review/catalog"))
    assert "in the policy" in tab.get_by_role("row").filter(has_text="aks/core").inner_text()
    assert fits(tab)
    shoot(tab, "catalog")
    tab.get_by_role("link", name="aks/core").click()
    tab.wait_for_url("**requirement=aks**")
    row = tab.get_by_role("row").filter(has_text="mcr.microsoft.com").first.inner_text()
    assert "CSE exit code 50" in row
    assert "in force" in row
    assert tab.locator("pre.copy").inner_text().startswith("requirements:\n  - aks/core")
    assert fits(tab)
    shoot(tab, "catalog-core")


def test_another_cloud_by_hand(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/catalog?requirement=aks/istio"))
    tab.get_by_role("link", name="AzureChinaCloud").click()
    tab.wait_for_url("**cloud=AzureChinaCloud**")
    assert "AzureChinaCloud does not have it" in tab.locator("main").inner_text()


def test_a_search_by_hand(site: Site, tab: Page) -> None:
    tab.goto(site.url("/review/catalog"))
    tab.get_by_label("Search").fill("mcr.microsoft.com")
    tab.get_by_role("button", name="Search").click()
    tab.wait_for_url("**search=mcr**")
    found = tab.locator("td.key a").all_inner_texts()
    assert found[0] == "aks/core"
    assert "aks/istio" not in found
    tab.get_by_role("link", name="aks/core").click()
    tab.wait_for_url("**requirement=**")
    assert "mcr" in [
        text.split("\n")[0] for text in tab.locator("tr.found td.key").all_inner_texts()
    ]
    tab.goto(site.url("/review/catalog?search=<script>alert(1)</script>.example"))
    assert "Nothing in the catalog" in tab.locator("main").inner_text()


def test_an_unknown_requirement_has_the_list_beside_it(
    site: Site, tab: Page, complaints: list[str]
) -> None:
    tab.goto(site.url("/review/catalog?requirement=aks/nope"))
    assert "There is no requirement aks/nope" in tab.get_by_role("alert").inner_text()
    assert tab.get_by_role("link", name="aks/core").is_visible()
    assert len(complaints) == 1  # the status, 404, which the browser tells
    complaints.clear()
