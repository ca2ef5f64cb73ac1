"""Requirements that a policy lacks, as denied names show them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.observe.record import NameSource, Plane
from egressproxy.review.eligible import Wanted
from egressproxy.review.missing import missing
from tests.policy.building import policy
from tests.review.subjects import counted, subject

if TYPE_CHECKING:
    from egressproxy.review.missing import Listing

HERE = (("location", "japaneast"),)


def wanted(*names: str, **more: Any) -> list[Wanted]:
    return [Wanted(counted(subject(name, **more))) for name in names]


def listed(found: tuple[Listing, ...]) -> list[tuple[str, dict[str, object]]]:
    return [(each.requirement.id, dict(each.options)) for each in found]


CASES: dict[str, tuple[list[str], list[tuple[str, dict[str, object]]]]] = {
    "none": (["api.example.com"], []),
    "one": (["data.policy.core.windows.net"], [("aks/azure-policy", {})]),
    "the core, with its API server": (
        ["mcr.microsoft.com", "packages.aks.azure.com", "lab-1.hcp.japaneast.azmk8s.io"],
        [("aks/core", {"api_server_fqdn": "lab-1.hcp.japaneast.azmk8s.io"})],
    ),
    "the core, with two API servers: never everybody's": (
        ["mcr.microsoft.com", "a.hcp.japaneast.azmk8s.io", "b.hcp.japaneast.azmk8s.io"],
        [("aks/core", {"api_server_fqdn": "a.hcp.japaneast.azmk8s.io"})],
    ),
    "of what one name could mean, what opens least": (
        ["login.microsoftonline.com"],
        [("aks/workload-identity", {})],
    ),
    "what covers most": (
        ["login.microsoftonline.com", "x.ods.opinsights.azure.com", "x.monitoring.azure.com"],
        [("aks/azure-monitor", {})],
    ),
    "two": (
        ["snapshot.ubuntu.com", "nvidia.github.io"],
        [("aks/ubuntu-updates", {}), ("aks/gpu", {})],
    ),
    "a registry whose layers are in everybody's storage": (["mine00.azurecr.io"], []),
    "a registry with endpoints of its own": (
        ["mine00.azurecr.io", "mine00.eastus.data.azurecr.io", "mine00.westus.data.azurecr.io"],
        [
            (
                "acr",
                {
                    "registry": "mine00",
                    "data_endpoint": "dedicated",
                    "regions": ("eastus", "westus"),
                },
            )
        ],
    ),
    "vaults alone, where every customer has some": (["mine.vault.azure.net"], []),
}


@pytest.mark.parametrize("case", CASES)
def test_missing(case: str) -> None:
    names, expected = CASES[case]
    assert sorted(listed(missing(wanted(*names), (), policy(parameters=HERE)))) == sorted(expected)


def test_two_registries_are_listed_twice() -> None:
    names = [
        f"{r}{rest}"
        for r in ("first", "second")
        for rest in (".azurecr.io", ".eastus.data.azurecr.io")
    ]
    found = missing(wanted(*names), (), policy())
    assert [dict(each.options)["registry"] for each in found] == ["first", "second"]


def test_the_word_for_an_api_server_counts_more_than_how_often_another_was_wanted() -> None:
    evil, mine = "evil.hcp.japaneast.azmk8s.io", "lab-1.hcp.japaneast.azmk8s.io"
    names = [
        Wanted(counted(subject(evil), 1000), shared="hcp.japaneast.azmk8s.io"),
        Wanted(counted(subject(mine), 1)),
        Wanted(counted(subject("mcr.microsoft.com"), 1)),
    ]
    (found,) = missing(names, (), policy(parameters=HERE))
    assert dict(found.options) == {"api_server_fqdn": mine}


def test_the_word_for_a_registry_counts_more_than_how_often_another_was_wanted() -> None:
    def pair(registry: str, count: int) -> list[Wanted]:
        names = (f"{registry}.azurecr.io", f"{registry}.eastus.data.azurecr.io")
        return [Wanted(counted(subject(name), count)) for name in names]

    (found,) = missing(pair("mine00", 1), pair("evil00", 1000), policy())
    assert dict(found.options)["registry"] == "mine00"


def test_a_parameter_that_is_nowhere_is_read_from_the_name() -> None:
    name = "lab-1.hcp.westus.azmk8s.io"
    assert listed(missing(wanted(name), (), policy())) == [
        ("aks/core", {"location": "westus", "api_server_fqdn": name})
    ]


def test_what_the_policy_has_is_not_missing() -> None:
    names = wanted("mcr.microsoft.com")
    here = policy(parameters=HERE, requirements=("aks/core", "mcr", "aks/cluster-extensions"))
    assert not missing(names, (), here)


def test_what_went_too_far_is_not_tried() -> None:
    names = wanted("data.policy.core.windows.net")
    assert not missing(names, (), policy(parameters=HERE), {"aks/azure-policy"})


def test_a_port_that_no_row_has() -> None:
    assert not missing(wanted("mcr.microsoft.com", dst_port=8443), (), policy(parameters=HERE))


def test_by_a_names_addresses() -> None:
    ntp = wanted(
        "ntp.ubuntu.com",
        plane=Plane.NETWORK,
        protocol="udp",
        dst_port=123,
        name_source=NameSource.DNS,
    )
    assert listed(missing(ntp, (), policy())) == [("aks/ntp", {})]


def test_a_strangers_name_is_opened_where_the_catalog_has_that_very_name() -> None:
    """Anybody can have a name below azureedge.net and github.io; these two are documented."""
    strangers = wanted("nvidia.github.io", "evil.github.io", "evil.azurecr.io")
    (found,) = missing([], strangers, policy(parameters=HERE))
    assert found.requirement.id == "aks/gpu"
    assert [each.count.subject.name for each in found.covers] == ["nvidia.github.io"]


def test_addresses_need_no_requirement() -> None:
    assert not missing([Wanted(counted(subject(None)))], (), policy(parameters=HERE))
