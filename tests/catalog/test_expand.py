from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.catalog import CLOUDS, expand, load_catalog, parameters_of
from egressproxy.errors import CatalogError, ParameterProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

GLOBAL, CHINA, GOV = "AzureCloud", "AzureChinaCloud", "AzureUSGovernment"


def names(requirement: str, *, via: str | None = None, **parameters: object) -> list[str]:
    rows = expand(requirement, cloud=GLOBAL, parameters=parameters, via=via)
    return [str(pattern) for row in rows for pattern in row.patterns]


def problems(
    requirement: str,
    *,
    cloud: str = GLOBAL,
    via: str | None = None,
    shared: Mapping[str, object] | None = None,
    given: Mapping[str, object] | None = None,
    **parameters: object,
) -> tuple[ParameterProblem, ...]:
    parameters |= given or {}
    with pytest.raises(CatalogError) as raised:
        expand(requirement, cloud=cloud, parameters=parameters, shared=shared, via=via)
    return raised.value.problems


def test_rows_come_in_document_order_with_ids_that_tell() -> None:
    rows = expand("aks/core", cloud=GLOBAL, parameters={"location": "japaneast"})
    assert [row.row.id for row in rows] == [
        "aks/core#api-server",
        "aks/core#mcr",
        "aks/core#mcr-data",
        "aks/core#resource-manager",
        "aks/core#entra",
        "aks/core#packages",
        "aks/core#binaries-mirror",
        "aks/core#binaries",
    ]


def test_api_server_fqdn_narrows_the_wildcard_and_needs_no_location() -> None:
    name = "lab-1a2b.hcp.japaneast.azmk8s.io"
    assert names("aks/core", api_server_fqdn=name)[0] == name
    assert names("aks/core", api_server_fqdn=name, location="japaneast")[0] == name


@pytest.mark.parametrize(
    ("fqdn", "location"),
    [
        ("lab.hcp.westeurope.azmk8s.io", "japaneast"),
        ("lab.hcp.evil.example", None),
        ("lab.hcp.a.b.azmk8s.io", None),
        ("hcp.japaneast.azmk8s.io", "japaneast"),
        ("lab.privatelink.japaneast.azmk8s.io", "japaneast"),
    ],
)
def test_api_server_fqdn_must_be_one_that_the_wildcard_means(
    fqdn: str, location: str | None
) -> None:
    given = {"api_server_fqdn": fqdn} | ({"location": location} if location else {})
    (problem,) = problems("aks/core", given=given)
    assert problem.parameter == "api_server_fqdn"
    assert f"{fqdn} is none of *.hcp." in problem.what
    assert "private_cluster: true" in problem.hint


def test_api_server_fqdn_elsewhere_has_no_private_cluster_to_hint_at() -> None:
    (problem,) = problems("aks/core", cloud=GOV, api_server_fqdn="a.example", location="usgovva")
    assert "private_cluster" not in problem.hint


def test_private_cluster_leaves_the_public_api_server_out_and_its_location_with_it() -> None:
    assert names("aks/core", private_cluster=True)[0] == "mcr.microsoft.com"
    assert names("aks/core", private_cluster=False, location="eastus")[0].startswith("*.hcp.")


def test_private_cluster_is_an_exemption_of_the_public_cloud_alone() -> None:
    (problem,) = problems("aks/core", cloud=CHINA, private_cluster=True, location="chinaeast2")
    assert problem == ParameterProblem(
        "private_cluster", "private_cluster means nothing in AzureChinaCloud", "only in AzureCloud"
    )
    rows = expand(
        "aks/core", cloud=CHINA, shared={"private_cluster": True, "location": "chinaeast2"}
    )
    assert str(rows[0].patterns[0]) == "*.hcp.chinaeast2.cx.prod.service.azk8s.cn"


def test_every_region_has_its_data_endpoint() -> None:
    assert names(
        "acr", registry="MyRegistry", data_endpoint="dedicated", regions="eastus, westus"
    ) == [
        "myregistry.azurecr.io",
        "azurecr.io",
        "myregistry.eastus.data.azurecr.io",
        "myregistry.westus.data.azurecr.io",
    ]


def test_blob_storage_is_the_registrys_default_and_goes_with_dedicated_endpoints() -> None:
    assert names("acr", registry="myregistry") == [
        "myregistry.azurecr.io",
        "azurecr.io",
        "*.blob.core.windows.net",
    ]


def test_regional_endpoints_are_opt_in() -> None:
    found = names("acr", registry="myregistry", regions=["eastus"], regional_endpoints="true")
    assert found[-1] == "myregistry.eastus.geo.azurecr.io"


VIAS: Final = [
    ("aks/tunnel", "service-tag", {"location": "japaneast"}, ["tag:AzureCloud.japaneast"] * 2),
    ("aks/tunnel", "cidrs", {"region_cidrs": "20.0.0.0/8"}, ["20.0.0.0/8"] * 2),
    ("aks/tunnel", "api-server", {"api_server_ips": ["20.1.2.3"]}, ["20.1.2.3/32"] * 2),
    ("aks/tunnel", "any", {}, ["any", "any"]),
    ("aks/ntp", None, {}, ["ntp.ubuntu.com"]),
    ("aks/ntp", "fqdn", {}, ["ntp.ubuntu.com"]),
    ("aks/ntp", "any", {}, ["any"]),
    (
        "aks/azure-monitor",
        "service-tag",
        {},
        ["tag:AzureMonitor", "login.microsoftonline.com"],
    ),
    ("acr", "service-tag", {}, ["tag:AzureContainerRegistry", "tag:Storage"]),
    (
        "acr",
        "service-tag",
        {"regions": ["japaneast"]},
        ["tag:AzureContainerRegistry.japaneast", "tag:Storage.japaneast"],
    ),
    ("mcr", "service-tag", {}, ["tag:MicrosoftContainerRegistry", "tag:AzureFrontDoor.FirstParty"]),
    ("mcr", None, {}, ["mcr.microsoft.com", "*.data.mcr.microsoft.com"]),
]


@pytest.mark.parametrize(("requirement", "via", "parameters", "expected"), VIAS)
def test_via_picks_exactly_one_alternative(
    requirement: str, via: str | None, parameters: dict[str, object], expected: list[str]
) -> None:
    found = []
    for row in expand(requirement, cloud=GLOBAL, parameters=parameters, via=via):
        found += [*map(str, row.patterns), *map(str, row.networks)]
        found += [f"tag:{tag}" for tag in row.tags] + ["any"] * row.any_destination
    assert found == expected


def test_nothing_opens_by_address_unless_a_policy_chooses_it() -> None:
    by_address = {"aks/tunnel", "aks/custom-dns", "aks/api-server"}
    shared = {"location": "eastus", "registry": "myregistry"}
    for requirement in load_catalog().requirements:
        if requirement.id in by_address:
            continue
        for cloud in requirement.clouds:
            for row in expand(requirement.id, cloud=cloud, shared=shared):
                assert row.patterns
                assert not any((row.networks, row.tags, row.any_destination))


def test_the_tunnel_has_no_default() -> None:
    (problem,) = problems("aks/tunnel", shared={"location": "eastus"})
    assert problem == ParameterProblem(
        "via", "via must be chosen", "via: one of service-tag, cidrs, api-server, any"
    )


def test_china_has_port_22_of_the_tunnel_and_the_others_do_not() -> None:
    ports = {
        cloud: [str(p) for row in expand("aks/tunnel", cloud=cloud, via="any") for p in row.ports]
        for cloud in CLOUDS
    }
    assert ports == {
        GLOBAL: ["udp:1194", "tcp:9000"],
        CHINA: ["udp:1194", "tcp:9000", "tcp:22"],
        GOV: ["udp:1194", "tcp:9000"],
    }


@pytest.mark.parametrize(
    ("requirement", "hint"),
    [
        ("aks/key-vault", "vault.azure.cn"),
        ("aks/istio", "vault.azure.cn"),
        ("aks/app-routing", "vault.azure.cn"),
        ("aks/cluster-extensions", "names no endpoint"),
    ],
)
def test_a_cloud_without_the_requirement_is_told_which_have_it(requirement: str, hint: str) -> None:
    (problem,) = problems(requirement, cloud=CHINA)
    assert problem.what == (
        "AzureChinaCloud does not have this requirement; AzureCloud and AzureUSGovernment have it"
    )
    assert hint in problem.hint


def test_an_unknown_cloud_is_told_the_nearest() -> None:
    (problem,) = problems("aks/core", cloud="AzureChina")
    assert problem.parameter == "cloud"
    assert "AzureChinaCloud" in problem.hint
    (problem,) = problems("aks/core", cloud="moon")
    assert problem.hint == ", ".join(CLOUDS)


def test_an_unknown_requirement_is_told_the_nearest() -> None:
    (problem,) = problems("aks/azure-monitr")
    assert "aks/azure-monitor" in problem.hint
    (problem,) = problems("zzz")
    assert "catalog list" in problem.hint


@pytest.mark.parametrize(
    ("requirement", "given", "parameter", "what", "hint"),
    [
        ("aks/core", {}, "location", "it needs location", "location: japaneast, the cluster's"),
        ("acr", {}, "registry", "it needs registry", "registry: myregistry"),
        (
            "acr",
            {"registry": "myregistry", "data_endpoint": "dedicated"},
            "regions",
            "it needs regions",
            "regions: [eastus, westus], every region",
        ),
        ("aks/custom-dns", {}, "dns_servers", "it needs dns_servers", "[10.0.0.10]"),
        ("aks/api-server", {}, "api_server_ips", "it needs api_server_ips", "[20.1.2.3]"),
        ("aks/core", {"locaton": "x"}, "locaton", "takes no parameter 'locaton'", "location"),
        ("aks/ntp", {"location": "x"}, "location", "takes no parameter 'location'", "takes none"),
        ("aks/core", {"zzz": "x"}, "zzz", "takes no parameter", "it takes location, api_server"),
    ],
)
def test_each_parameter_problem_says_what_to_write(
    requirement: str, given: dict[str, object], parameter: str, what: str, hint: str
) -> None:
    found = {problem.parameter: problem for problem in problems(requirement, given=given)}
    assert what in found[parameter].what
    assert hint in found[parameter].hint


def test_every_problem_is_said_at_once_and_none_twice() -> None:
    found = problems(
        "acr", via="fqdm", registry="no good", regoins="x", shared={"zone": 1, "location": "eastus"}
    )
    assert [problem.parameter for problem in found] == ["via", "regoins", "zone", "registry"]


def test_one_message_holds_every_problem() -> None:
    with pytest.raises(CatalogError) as raised:
        expand("acr", cloud=GLOBAL, parameters={"registry": "a", "regional_endpoints": "maybe"})
    text = str(raised.value)
    assert text.startswith("acr:\n  - ")
    assert "registry: 'a'" in text
    assert "regional_endpoints: 'maybe'" in text


def test_a_wrong_value_is_not_reported_as_missing_too() -> None:
    assert [p.parameter for p in problems("aks/core", location="Japan East")] == ["location"]


def test_shared_parameters_are_ignored_where_not_taken_and_overridden() -> None:
    shared: dict[str, object] = {"location": "eastus", "registry": "myregistry"}
    assert expand("aks/gpu", cloud=GLOBAL, shared=shared)
    rows = expand("aks/core", cloud=GLOBAL, parameters={"location": "westus"}, shared=shared)
    assert str(rows[0].patterns[0]) == "*.hcp.westus.azmk8s.io"


@pytest.mark.parametrize(
    ("requirement", "via", "hint"),
    [
        ("aks/gpu", "fqdn", "remove via"),
        ("mcr", "service-tags", "service-tag"),
        ("mcr", "zzz", "one of fqdn, service-tag"),
    ],
)
def test_an_unknown_via_is_told_the_choices(requirement: str, via: str, hint: str) -> None:
    (problem,) = problems(requirement, via=via)
    assert problem.parameter == "via"
    assert hint in problem.hint


def test_parameters_of_a_requirement() -> None:
    core = load_catalog().requirement("aks/core")
    assert parameters_of(core) == ("location", "api_server_fqdn", "private_cluster")
    assert parameters_of(core, CHINA) == ("location", "api_server_fqdn")
    assert parameters_of(load_catalog().requirement("aks/gpu")) == ()
