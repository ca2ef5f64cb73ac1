"""Names that imitate documented ones, and names that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.catalog.loader import load_catalog
from egressproxy.catalog.samples import samples
from egressproxy.names import DnsName
from egressproxy.review.imitation import imitated

IMITATIONS = {
    "two letters for one": ("mcr.rnicrosoft.com", "microsoft.com"),
    "a digit for a letter": ("mcr.micros0ft.com", "microsoft.com"),
    "another script": (
        str(DnsName("mcr.micr\N{CYRILLIC SMALL LETTER O}soft.com")),
        "microsoft.com",
    ),
    "a letter too many": ("login.microsoftonlinne.com", "microsoftonline.com"),
    "a letter is missing": ("login.microsoftonlne.com", "microsoftonline.com"),
    "another letter": ("www.microsofd.com", "microsoft.com"),
    "another top-level domain": ("mcr.microsoft.co", "microsoft.com"),
    "a hyphen for the dot": ("mcr-microsoft.com", "microsoft.com"),
    "hyphens for dots": ("packages-aks-azure.com", "azure.com"),
    "in front of another domain": ("mcr.microsoft.com.evil.example", "microsoft.com"),
    "in front of a country": ("microsoft.com.au", "microsoft.com"),
}
HONEST = {
    "documented": "mcr.microsoft.com",
    "below a documented domain": "evil.microsoft.com",
    "a wildcard of the catalog": "x.ods.opinsights.azure.com",
    "somebody's": "api.example.com",
    "a short domain": "azurr.net",
    "the word in a label": "microsoft.example.com",
    "below what anybody has": "ghcr.github.io",
    "one label": "microsoft",
    "an azure of their own": "lapislazuli.azure.example",
}


@pytest.mark.parametrize("case", IMITATIONS)
def test_imitations(case: str) -> None:
    name, domain = IMITATIONS[case]
    assert imitated(name) == domain


@pytest.mark.parametrize("case", HONEST)
def test_honest_names(case: str) -> None:
    assert imitated(HONEST[case]) == ""


def test_every_documented_name_is_honest() -> None:
    rows = [row for requirement in load_catalog().requirements for row in requirement.rows]
    names = [sample.name for sample in samples(rows)]
    assert len(names) > 80
    assert [name for name in names if imitated(name)] == []


@given(st.text(alphabet="abcmrn0.-", max_size=80))
def test_any_text_has_an_answer(name: str) -> None:
    imitated(name)
