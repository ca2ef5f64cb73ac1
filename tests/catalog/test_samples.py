"""Sample names of the catalog: every template becomes a name, examples stand for parameters."""

from __future__ import annotations

import pytest

from egressproxy.catalog import CLOUDS, load_catalog, samples
from egressproxy.errors import CatalogError


def texts(requirement: str, cloud: str = "AzureCloud", **parameters: str) -> list[str]:
    rows = load_catalog().requirement(requirement).rows_of(cloud)
    return [f"{name} {port}" for name, port, _ in samples(rows, parameters)]


def test_examples_stand_for_what_is_not_given() -> None:
    assert texts("aks/core")[:2] == [
        "sample.hcp.japaneast.azmk8s.io tls:443",
        "mcr.microsoft.com tls:443",
    ]
    assert texts("aks/core", location="eastus")[0] == "sample.hcp.eastus.azmk8s.io tls:443"


def test_each_region_has_a_name() -> None:
    found = texts("acr", registry="mine1", regions="eastus,westus")
    assert "mine1.eastus.data.azurecr.io tls:443" in found
    assert "mine1.westus.data.azurecr.io tls:443" in found


def test_addresses_have_no_names() -> None:
    assert texts("aks/tunnel") == []


def test_a_wrong_value() -> None:
    with pytest.raises(CatalogError, match="not a region's short name"):
        texts("aks/core", location="Japan East")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_row_with_names_has_a_sample(cloud: str) -> None:
    rows = [row for one in load_catalog().requirements for row in one.rows_of(cloud)]
    for row in rows:
        assert bool(samples([row])) is bool(row.names), row.id
    found = samples(rows)
    assert len({(one.name, one.port) for one in found}) == len(found) > 40
