from __future__ import annotations

import pytest

from egressproxy.catalog import load_catalog
from egressproxy.catalog.model import Condition
from egressproxy.errors import CatalogError


def test_an_unknown_requirement_names_the_nearest() -> None:
    with pytest.raises(CatalogError, match="aks/core") as raised:
        load_catalog().requirement("aks/cor")
    assert "aks/core" in raised.value.hint


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (Condition("data_endpoint", "blob"), "data_endpoint is blob"),
        (Condition("regional_endpoints", True), "regional_endpoints is true"),
        (Condition("regions", True), "regions is given"),
        (Condition("regions", False), "regions is not given"),
    ],
)
def test_conditions_read_as_sentences(condition: Condition, text: str) -> None:
    assert str(condition) == text


@pytest.mark.parametrize(
    ("requirement", "row", "destinations"),
    [
        ("aks/tunnel", "udp-1194-any", ("any address",)),
        ("aks/tunnel", "udp-1194-cidrs", ("{region_cidrs}",)),
        ("aks/tunnel", "udp-1194-service-tag", ("tag:AzureCloud.{location}",)),
        ("aks/core", "mcr", ("mcr.microsoft.com",)),
    ],
)
def test_destinations_as_a_person_reads_them(
    requirement: str, row: str, destinations: tuple[str, ...]
) -> None:
    rows = load_catalog().requirement(requirement).rows_of("AzureCloud")
    (found,) = [r for r in rows if r.id == f"{requirement}#{row}"]
    assert found.destinations == destinations
