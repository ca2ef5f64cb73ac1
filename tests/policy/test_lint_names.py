from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.names import DnsName
from egressproxy.policy.lint_names import MULTI_TENANT, is_shared, name_findings, shared_suffix
from tests.policy.building import DENY, YESTERDAY, name_list, rule
from tests.policy.linting import texts, told

if TYPE_CHECKING:
    from egressproxy.policy.rules import Rule

TENANT, WIDE, APEX = "multi-tenant", "over-wide", "missing-apex"

CASES = {
    "blob": (rule("a", "*.blob.core.windows.net", "blob.core.windows.net"), {TENANT}),
    "blob prefix": (rule("a", "umsa*.blob.core.windows.net"), {TENANT}),
    "blob of china": (rule("a", "*.blob.core.chinacloudapi.cn"), {TENANT}),
    "sites": (rule("a", "*.azurewebsites.net"), {TENANT}),
    "key vaults": (rule("a", "*.vault.azure.net"), {TENANT}),
    "registries": (rule("a", "*.azurecr.io"), {TENANT}),
    "pages, private section of the public suffix list": (rule("a", "*.github.io"), {TENANT}),
    "denied": (rule("a", "*.blob.core.windows.net", action=DENY), set()),
    "expired": (rule("a", "*.blob.core.windows.net", until=YESTERDAY), set()),
    "one account": (rule("a", "mine.blob.core.windows.net"), set()),
    "below one account": (rule("a", "*.mine.blob.core.windows.net"), {APEX}),
    "storage of every kind": (rule("a", "*.core.windows.net"), {WIDE}),
    "all of azure.com": (rule("a", "*.azure.com", "azure.com"), {WIDE}),
    "prefix above": (rule("a", "login*.azure.com"), set()),
    "beside": (rule("a", "*.monitor.azure.com", "monitor.azure.com"), set()),
    "no apex": (rule("a", "*.example.com"), {APEX}),
    "with apex": (rule("a", "*.example.com", "example.com"), set()),
    "apex in its list": (
        rule("a", "*.example.com", lists=(name_list("example.com"),)),
        set(),
    ),
    "apex below a wider one": (rule("a", "*.example.com", "*.b.example.com", "example.com"), set()),
    "catalog without apex": (rule("a", "*.data.example.com", requirement="aks/core"), set()),
    "prefix needs no apex": (rule("a", "md-*.example.com"), set()),
    "api servers": (
        rule("a", "*.hcp.japaneast.azmk8s.io", requirement="aks/core"),
        {"all-api-servers"},
    ),
    "api servers of china": (
        rule("a", "*.hcp.chinaeast2.cx.prod.service.azk8s.cn"),
        {"all-api-servers"},
    ),
    "api servers of us government": (
        rule("a", "*.hcp.usgovvirginia.cx.aks.containerservice.azure.us"),
        {"all-api-servers"},
    ),
    "own api server": (rule("a", "x.hcp.japaneast.azmk8s.io"), set()),
    "acr with blob": (
        rule("a", "*.blob.core.windows.net", requirement="acr"),
        {TENANT, "dedicated-switch"},
    ),
    "acr dedicated": (rule("a", "r.eastus.data.azurecr.io", requirement="acr"), set()),
    "listed": (rule("a", lists=(name_list("a.test", "*.azurewebsites.net"),)), {TENANT}),
    "listed, very wide": (rule("a", lists=(name_list("*.windows.net"),)), {TENANT}),
    "listed organisations": (rule("a", lists=(name_list("*.example.com", "b.test"),)), set()),
}


@pytest.mark.parametrize(("one", "codes"), CASES.values(), ids=CASES)
def test_findings(one: Rule, codes: set[str]) -> None:
    assert told(name_findings, one) == {(code, "a") for code in codes}


def test_an_apex_may_stand_in_another_rule() -> None:
    assert told(name_findings, rule("a", "*.a.test"), rule("b", "a.test")) == set()
    assert told(name_findings, rule("a", "*.a.test"), rule("b", "a.test", action=DENY)) == set()


def test_what_lies_below_is_named() -> None:
    (text,) = texts(name_findings, rule("a", "*.trafficmanager.net"))
    assert text.startswith("*.trafficmanager.net is everybody's")
    (text,) = texts(name_findings, rule("a", "*.usgovcloudapi.net"))
    assert "blob.core.usgovcloudapi.net too, where any customer" in text


HINTS = {
    None: "list the names that you use",
    "acr": "data_endpoint: dedicated (Premium) avoids it: see dedicated-switch first",
    "aks/key-vault": "write rules for your own names instead, or accept it here",
}


@pytest.mark.parametrize(("requirement", "hint"), HINTS.items())
def test_what_is_narrower(requirement: str | None, hint: str) -> None:
    wild = rule("a", "*.blob.core.windows.net", requirement=requirement)
    assert texts(name_findings, wild)[0].endswith(f" -> {hint}")


def test_a_list_is_one_finding_whatever_it_has() -> None:
    names = name_list("*.github.io", "*.azurewebsites.net", "*.r2.dev", "*.windows.net", "a.test")
    found = texts(name_findings, rule("a", lists=(names,)), rule("b", lists=(names,)))
    assert len(found) == 2
    assert "names.txt has *.github.io, *.azurewebsites.net, *.r2.dev and 1 more" in found[0]


ANYBODYS = {
    "storage of a DNS zone": "evil.z12.blob.storage.azure.net",
    "a data explorer": "evil.japaneast.kusto.windows.net",
    "a batch account": "evil.japaneast.batch.azure.com",
    "a workflow with a trigger for anybody": "prod-01.japaneast.logic.azure.com",
    "a synapse workspace": "evil.sql.azuresynapse.net",
    "a tenant": "evil.onmicrosoft.com",
    "a tunnel to a desk": "evil-8080.asse.devtunnels.ms",
    "another cloud's storage": "evil.oss-ap-northeast-1.aliyuncs.com",
    "a listener for anybody": "evil.oast.fun",
}


@pytest.mark.parametrize("case", ANYBODYS)
def test_a_name_there_is_anybodys(case: str) -> None:
    assert shared_suffix(ANYBODYS[case])


def test_private_api_servers_are_every_tenants() -> None:
    assert is_shared("privatelink.japaneast.azmk8s.io")


@pytest.mark.parametrize("suffix", sorted(MULTI_TENANT))
def test_suffixes_are_names(suffix: str) -> None:
    assert DnsName(suffix) == suffix


@pytest.mark.parametrize(
    ("suffix", "wanted"),
    [
        ("blob.core.windows.net", True),
        ("core.windows.net", True),
        ("github.io", True),
        ("com", True),
        ("hcp.japaneast.azmk8s.io", True),
        ("mine.blob.core.windows.net", False),
        ("data.mcr.microsoft.com", False),
        ("example.com", False),
    ],
)
def test_shared_suffixes(suffix: str, wanted: bool) -> None:
    assert is_shared(suffix) is wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mine.blob.core.windows.net", "blob.core.windows.net"),
        ("a.mine.blob.core.windows.net", "blob.core.windows.net"),
        ("me.github.io", "github.io"),
        ("mine.japaneast.data.azurecr.io", "data.azurecr.io"),
        ("login.azure.com", ""),
        ("blob.core.windows.net", ""),
        ("example.com", ""),
        ("www.example.co.uk", ""),
        ("intranet", ""),
    ],
)
def test_the_suffix_that_a_name_shares_with_strangers(name: str, wanted: str) -> None:
    assert shared_suffix(name) == wanted
