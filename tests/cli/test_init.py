from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from egressproxy.catalog import CLOUDS
from egressproxy.cli import init
from egressproxy.cli.starter import add_ons, scalar
from egressproxy.errors import CatalogError
from egressproxy.policy.load import load_policy

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from egressproxy.policy.rules import Policy

REGIONS = {
    "AzureCloud": "japaneast",
    "AzureChinaCloud": "chinaeast2",
    "AzureUSGovernment": "usgovvirginia",
}


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(init.command, arguments, input=text, catch_exceptions=False)


def written(folder: Path, *arguments: str, text: str | None = None) -> tuple[Policy, str, Result]:
    path = folder / "policy.yaml"
    result = run(*arguments, "-o", str(path), text=text)
    assert result.exit_code == 0, result.output
    return load_policy(path), path.read_text(), result


def ids(policy: Policy) -> set[str]:
    return {rule.id for rule in policy.rules}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_smallest_policy_of_each_cloud_validates(cloud: str, tmp_path: Path) -> None:
    policy, text, _ = written(tmp_path, "--cloud", cloud, "--location", REGIONS[cloud])
    assert policy.cloud == cloud
    assert "aks/core" in policy.requirements
    assert f"location: {REGIONS[cloud]}" in text


@pytest.mark.parametrize("cloud", CLOUDS)
def test_everything_chosen_validates_in_each_cloud(cloud: str, tmp_path: Path) -> None:
    chosen = ",".join(one.id for one in add_ons(cloud))
    policy, text, _ = written(
        tmp_path,
        *("--cloud", cloud, "--location", REGIONS[cloud], "--add-on", chosen),
        *("--api-server-ip", "20.1.2.3", "--api-server-ip", "2001:db8::1"),
        *("--dns-server", "10.0.0.10,10.0.0.11", "--registry", "myregistry"),
        *("--registry-region", REGIONS[cloud], "--data-endpoint", "dedicated"),
    )
    wanted = {one.id for one in add_ons(cloud)} | {"aks/core", "aks/api-server", "acr"}
    assert wanted <= set(policy.requirements)
    assert "acr#dedicated-data" in ids(policy)
    assert "aks/custom-dns#tcp" in ids(policy)
    assert '"2001:db8::1"' in text


def test_what_was_not_chosen_stands_as_comments_that_work(tmp_path: Path) -> None:
    _, text, _ = written(tmp_path, "--location", "japaneast")
    lines = [
        line.replace("  # - ", "  - ", 1) if line.startswith("  # - ") else line
        for line in text.splitlines()
    ]
    path = tmp_path / "all.yaml"
    path.write_text("\n".join(lines))
    policy = load_policy(path)
    assert {one.id for one in add_ons("AzureCloud")} <= set(policy.requirements)
    assert "rules/github" in ids(policy)


def test_the_public_cloud_needs_neither_tunnel_nor_ntp(tmp_path: Path) -> None:
    policy, _, _ = written(tmp_path, "--location", "eastus", "--api-server-ip", "20.1.2.3")
    assert not {"aks/tunnel", "aks/ntp"} & set(policy.requirements)


@pytest.mark.parametrize("cloud", CLOUDS[1:])
def test_other_clouds_have_ntp_and_the_tunnel_where_its_end_is_known(
    cloud: str, tmp_path: Path
) -> None:
    arguments = ("--cloud", cloud, "--location", REGIONS[cloud])
    policy, text, result = written(tmp_path, *arguments)
    assert "aks/ntp" in policy.requirements
    assert "aks/tunnel" not in policy.requirements
    assert "(this cloud's document requires it)" in text
    assert "requires aks/tunnel" in result.stderr
    policy, _, _ = written(tmp_path, *arguments, "--api-server-ip", "20.1.2.3", "--force")
    assert "aks/tunnel#udp-1194-api-server" in ids(policy)


def test_an_api_server_of_ones_own_narrows_and_silences_the_note(tmp_path: Path) -> None:
    name = "lab-1a2b.hcp.japaneast.azmk8s.io"
    policy, _, result = written(tmp_path, "--location", "japaneast", "--api-server-fqdn", name)
    assert name in map(str, policy.rules[0].patterns)
    assert "every cluster in the region" not in result.stderr


def test_a_private_cluster_allows_no_public_api_server(tmp_path: Path) -> None:
    policy, _, _ = written(tmp_path, "--location", "japaneast", "--private-cluster")
    assert "aks/core#api-server" not in ids(policy)


def test_a_registry_in_shared_storage_is_said_to_be(tmp_path: Path) -> None:
    policy, text, _ = written(tmp_path, "--location", "eastus", "--registry", "myregistry")
    assert "acr#blob" in ids(policy)
    assert "# Blob storage is every tenant's" in text


def test_audit_until_is_written_as_a_day(tmp_path: Path) -> None:
    policy, _, _ = written(tmp_path, "--location", "eastus", "--audit-until", "2099-12-31")
    assert str(policy.mode) == "audit"
    assert str(policy.audit_until) == "2099-12-31"


@pytest.mark.parametrize("days", [1, 400])
def test_an_audit_may_end_on_any_later_day(days: int) -> None:
    day = str(datetime.now(UTC).date() + timedelta(days=days))
    assert (
        f"audit_until: {day}" in run("--location", "eastus", "--audit-until", day, "-o", "-").stdout
    )


def test_the_next_steps_are_those_of_a_gateway(tmp_path: Path) -> None:
    _, _, result = written(tmp_path, "--location", "japaneast")
    file = tmp_path / "policy.yaml"
    assert result.stderr.splitlines()[-4:] == [
        f"next: egressproxy check mcr.microsoft.com --policy {file}",
        f"      egressproxy doctor --policy {file}",
        f"      egressproxy up --policy {file} --review-store review.db --management 10.0.0.64/26"
        "   # or where you administer it from",
        f"      egressproxy denies --store review.db --policy {file}"
        "   # what it refuses, and what each of it is",
    ]


def test_stdout_has_the_policy_and_nothing_else(tmp_path: Path) -> None:
    result = run("--location", "japaneast", "-o", "-")
    path = tmp_path / "p.yaml"
    path.write_text(result.stdout)
    assert load_policy(path).requirements == ("aks/core",)
    assert result.stderr == ""


def test_a_file_is_not_overwritten_without_force(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("mine")
    with pytest.raises(CatalogError, match="--force"):
        run("--location", "japaneast", "-o", str(path))
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), ["init needs a location", "--location japaneast"]),
        (("--location", "Japan East"), ["write japaneast"]),
        (
            ("--location", "Japan East", "--registry", "my.azurecr.io", "--dns-server", "dns"),
            ["write japaneast", "'my.azurecr.io' is not a registry", "'dns' is not an address"],
        ),
        (("--location", "eastus", "--add-on", "monitor"), ["azure-monitor"]),
        (("--location", "eastus", "--add-on", "zzz,yyy"), ["'zzz'", "'yyy'", "one of ntp, "]),
        (
            ("--cloud", "AzureChinaCloud", "--location", "chinaeast2", "--add-on", "key-vault"),
            ["AzureChinaCloud has no add-on 'key-vault'"],
        ),
        (
            ("--location", "eastus", "--registry", "myregistry", "--data-endpoint", "dedicated"),
            ["it needs regions"],
        ),
        (
            ("--location", "eastus", "--api-server-fqdn", "a.hcp.westus.azmk8s.io"),
            ["is none of *.hcp.eastus.azmk8s.io"],
        ),
        (
            ("--location", "East US", "--audit-until", "2020-02-29"),
            ["audit_until: 2020-02-29 is over (UTC)", "a later day, such as 20", "write eastus"],
        ),
    ],
)
def test_wrong_flags_are_told_at_once(arguments: tuple[str, ...], says: list[str]) -> None:
    with pytest.raises(CatalogError) as raised:
        run(*arguments, "-o", "-")
    for words in says:
        assert words in str(raised.value)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "may_ask", lambda: True)


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_it_asks_and_asks_again(tmp_path: Path) -> None:
    answers = [
        "AzureCloud",
        "",  # is asked again
        "Japan East",  # is told to write japaneast
        "japaneast",
        "n",  # private cluster
        "lab-1a2b.hcp.japaneast.azmk8s.io",
        "20.1.2.3",
        "10.0.0.10, 10.0.0.11",
        "myregistry",
        "dedicated",
        "",  # is asked again
        "japaneast, westus",
        "azure-monitr",  # is told azure-monitor
        "azure-monitor, gpu",
    ]
    policy, _, result = written(tmp_path, text="\n".join(answers) + "\n")
    assert "Error: a region is needed (hint: such as japaneast)\n" in result.stderr
    assert "Error: a region is needed (hint: such as eastus, westus)\n" in result.stderr
    assert "write japaneast" in result.stderr
    assert "there is no add-on 'azure-monitr' (hint: did you mean azure-monitor" in result.stderr
    assert set(policy.requirements) == {
        "aks/core",
        "aks/api-server",
        "aks/custom-dns",
        "aks/azure-monitor",
        "aks/gpu",
        "acr",
    }
    patterns = [str(pattern) for rule in policy.rules for pattern in rule.patterns]
    assert "myregistry.westus.data.azurecr.io" in patterns
    assert "lab-1a2b.hcp.japaneast.azmk8s.io" in patterns


@pytest.mark.usefixtures("terminal")
def test_enter_leaves_answers_out(tmp_path: Path) -> None:
    policy, _, _ = written(tmp_path, "--cloud", "AzureChinaCloud", text="chinaeast2" + "\n" * 7)
    assert policy.requirements == ("aks/core", "aks/ntp")


@pytest.mark.usefixtures("terminal")
def test_no_input_asks_nothing() -> None:
    with pytest.raises(CatalogError, match="needs a location"):
        run("--no-input", "-o", "-")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("japaneast", "japaneast"),
        ("20.1.2.3", "20.1.2.3"),
        ("2001:db8::1", '"2001:db8::1"'),
        ("12345", '"12345"'),
        ("off", '"off"'),
        (True, "true"),
        (("eastus", "westus"), "[eastus, westus]"),
    ],
)
def test_values_are_quoted_where_yaml_would_read_them_otherwise(
    value: str | bool | tuple[str, ...], text: str
) -> None:
    assert scalar(value) == text
