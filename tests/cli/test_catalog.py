from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from egressproxy.catalog import load_catalog
from egressproxy.cli.catalog import command
from egressproxy.errors import CatalogError

if TYPE_CHECKING:
    from collections.abc import Callable

SHOW_CORE = ("show", "aks/core", "--cloud", "AzureCloud", "--set", "location=japaneast")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    with pytest.raises(CatalogError) as raised:
        CliRunner().invoke(command, arguments, catch_exceptions=False)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("catalog-list.txt", ("list",)),
        ("catalog-show-core.txt", SHOW_CORE),
        ("catalog-show-gpu.txt", ("show", "aks/gpu")),
        ("catalog-show-tunnel.txt", ("show", "aks/tunnel", "--cloud", "AzureChinaCloud")),
        ("catalog-show-acr.txt", ("show", "acr", "--cloud", "AzureCloud")),
    ],
)
def test_pages(name: str, arguments: tuple[str, ...], golden: Callable[[str, str], None]) -> None:
    golden(name, run(*arguments))


@pytest.mark.parametrize("requirement", [one.id for one in load_catalog().requirements])
def test_every_requirement_has_a_page_that_names_its_rows_and_parameters(requirement: str) -> None:
    page = run("show", requirement)
    found = load_catalog().requirement(requirement)
    for row in found.rows:
        assert row.id.partition("#")[2] in page
        assert row.section[:40] in page
    for via in found.vias:
        assert f"--via {via}" in page


def test_show_as_json_holds_what_the_page_says() -> None:
    page = json.loads(run(*SHOW_CORE, "--json"))
    assert page["id"] == "aks/core"
    first = page["rows"][0]
    assert first["id"] == "aks/core#api-server"
    assert first["destinations"] == ["*.hcp.japaneast.azmk8s.io"]
    assert first["ports"] == ["tls:443"]
    assert first["kind"] == "required"
    assert first["section"] == "Azure Global required FQDN / application rules"
    assert first["not_needed"][0]["parameter"] == "private_cluster"
    assert [row["note"] for row in page["rows"] if row["note"]] == [
        "harmless",
        "optional: vm-agent-updates",
    ]


def test_list_as_json() -> None:
    requirements: list[dict[str, Any]] = json.loads(run("list", "--json"))
    assert len(requirements) == len(load_catalog().requirements)
    acr = next(one for one in requirements if one["id"] == "acr")
    assert acr["parameters"].keys() == {
        "registry",
        "data_endpoint",
        "regions",
        "regional_endpoints",
    }
    assert acr["default_via"] == "fqdn"
    assert "pulls fail" in acr["warning"]


def test_list_of_a_cloud_leaves_out_what_it_lacks() -> None:
    assert "aks/key-vault" not in run("list", "--cloud", "AzureChinaCloud")
    assert "aks/key-vault" in run("list", "--cloud", "AzureUSGovernment")


@pytest.mark.parametrize(
    ("arguments", "shown", "hidden"),
    [
        (("--via", "any"), "any address", "tag:"),
        (("--set", "via=any"), "any address", "tag:"),
        (("--via", "service-tag", "--set", "location=eastus"), "tag:AzureCloud.eastus", "any"),
        (("--via", "api-server", "--set", "api_server_ips=20.1.2.3"), "20.1.2.3/32", "any"),
    ],
)
def test_via_shows_one_alternative(arguments: tuple[str, ...], shown: str, hidden: str) -> None:
    page = run("show", "aks/tunnel", "--cloud", "AzureCloud", *arguments)
    assert shown in page
    assert hidden not in page


def test_show_without_a_cloud_shows_each_cloud_once() -> None:
    page = run("show", "aks/core")
    assert [page.count(f"\n{cloud}\n") for cloud in ("AzureCloud", "AzureChinaCloud")] == [1, 1]
    assert "\nEvery cloud\n" in run("show", "aks/windows")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "aks/cor"), "did you mean aks/core"),
        (("show", "aks/core", "--set", "location=eastus"), "--set and --via need a cloud"),
        (("show", "aks/core", "--cloud", "AzureCloud", "--set", "location"), "sets nothing"),
        (("show", "aks/core", "--cloud", "AzureCloud", "--set", "=x"), "sets nothing"),
        (("show", "aks/core", "--cloud", "AzureCloud", "--set", "lcation=x"), "location"),
        (("show", "aks/key-vault", "--cloud", "AzureChinaCloud"), "vault.azure.cn"),
        (("show", "acr", "--cloud", "AzureCloud", "--via", "fqdn"), "it needs registry"),
    ],
)
def test_refusals_say_what_to_write(arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(*arguments)


def test_the_command_exits_2_and_says_why_on_stderr() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "egressproxy", "catalog", "show", "nothing"],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no requirement 'nothing'" in done.stderr


def test_no_control_codes_and_no_trailing_spaces_in_a_pipe() -> None:
    page = run(*SHOW_CORE)
    assert "\x1b" not in page
    assert not any(line.endswith(" ") for line in page.splitlines())


def test_names_are_lines_for_check_batch() -> None:
    result = CliRunner().invoke(
        command,
        ["names", "acr", "aks/ntp", "--cloud", "AzureChinaCloud", "--set", "registry=mine1"],
    )
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "mine1.azurecr.cn tls:443",
        "azurecr.cn tls:443",
        "sample.blob.core.chinacloudapi.cn tls:443",
        "mine1.eastus.data.azurecr.cn tls:443",
        "mine1.westus.data.azurecr.cn tls:443",
        "ntp.ubuntu.com udp:123",
    ]


def test_names_with_an_unknown_parameter() -> None:
    result = CliRunner().invoke(command, ["names", "--cloud", "AzureCloud", "--set", "lokation=x"])
    assert isinstance(result.exception, CatalogError)
    assert result.exception.hint == "did you mean location?"
