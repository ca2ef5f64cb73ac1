from __future__ import annotations

import pytest

from egressproxy.catalog.templates import expression, placeholders


@pytest.mark.parametrize(
    ("template", "name", "is_meant"),
    [
        ("*.hcp.{location}.azmk8s.io", "a.hcp.japaneast.azmk8s.io", True),
        ("*.hcp.{location}.azmk8s.io", "a.b.hcp.japaneast.azmk8s.io", True),
        ("*.hcp.{location}.azmk8s.io", "hcp.japaneast.azmk8s.io", False),
        ("*.hcp.{location}.azmk8s.io", "a.hcp.x.y.azmk8s.io", False),
        ("*.hcp.{location}.azmk8s.io", "a.hcp.japaneastXazmk8s.io", False),
        ("mcr.microsoft.com", "mcr.microsoft.com", True),
        ("mcr.microsoft.com", "mcrXmicrosoft.com", False),
    ],
)
def test_what_a_template_can_become(template: str, name: str, is_meant: bool) -> None:
    assert bool(expression(template).fullmatch(name)) is is_meant


def test_a_region_stands_for_each_of_the_regions() -> None:
    assert placeholders("{registry}.{region}.data.azurecr.io") == {
        "registry": "registry",
        "region": "regions",
    }
