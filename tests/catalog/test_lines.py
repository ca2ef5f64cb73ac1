"""Rows as they are read: templates or what fills them, what is said beside the purpose."""

from __future__ import annotations

import json

from egressproxy.catalog import CLOUDS, expand, load_catalog
from egressproxy.catalog.lines import Line, by_cloud


def lines_of(requirement: str) -> list[Line]:
    return [Line.of_row(row) for row in load_catalog().requirement(requirement).rows]


def test_a_row_shows_its_templates_and_an_expanded_one_what_fills_them() -> None:
    row = next(line for line in lines_of("aks/core") if line.row.id == "aks/core#api-server")
    assert row.destinations == ("*.hcp.{location}.azmk8s.io",)
    filled = expand("aks/core", cloud="AzureCloud", parameters={"location": "japaneast"})
    assert Line.of_expanded(filled[0]).destinations == ("*.hcp.japaneast.azmk8s.io",)


def test_an_expanded_row_may_be_any_address_a_tag_or_networks() -> None:
    def shown(via: str, **parameters: object) -> set[str]:
        found = expand("aks/tunnel", cloud="AzureCloud", via=via, parameters=parameters)
        return {text for row in found for text in Line.of_expanded(row).destinations}

    assert shown("any") == {"any address"}
    assert shown("service-tag", location="japaneast") == {"tag:AzureCloud.japaneast"}
    assert shown("api-server", api_server_ips=["20.1.2.3"]) == {"20.1.2.3/32"}


def test_need_and_remarks() -> None:
    lines = {line.row.id.partition("#")[2]: line for line in lines_of("aks/core")[::-1]}
    assert lines["mcr"].need == "required"
    assert lines["managed-disks"].need == "note only"
    assert any("a deny's note: harmless" in remark for remark in lines["managed-disks"].remarks)
    assert any("(private_cluster: true)" in remark for remark in lines["api-server"].remarks)


def test_clouds_that_say_the_same_are_one() -> None:
    assert [title for title, _ in by_cloud(lines_of("aks/ubuntu-updates"))] == ["Every cloud"]
    assert [title for title, _ in by_cloud(lines_of("aks/core"))] == list(CLOUDS)


def test_every_line_is_json() -> None:
    for requirement in load_catalog().requirements:
        for row in requirement.rows:
            line = Line.of_row(row)
            said = json.loads(json.dumps(line.as_json()))
            assert said["id"] == row.id
            assert said["destinations"]
            assert "{" not in line.need
