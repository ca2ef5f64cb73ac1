from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest

from egressproxy.catalog.parameters import MAX_ITEMS, PARAMETERS, ParameterKind, read_value
from egressproxy.errors import ParameterProblem

Network = IPv4Network | IPv6Network


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("location", "japaneast", "japaneast"),
        ("location", " usgovvirginia ", "usgovvirginia"),
        ("api_server_fqdn", "Lab.HCP.japaneast.azmk8s.io.", "lab.hcp.japaneast.azmk8s.io"),
        ("registry", "MyRegistry", "myregistry"),
        ("registry", "myregistry-a1b2c3", "myregistry-a1b2c3"),
        ("regions", "eastus", ("eastus",)),
        ("regions", "eastus,westus", ("eastus", "westus")),
        ("regions", ["eastus", "westus", "eastus"], ("eastus", "westus")),
        ("data_endpoint", "dedicated", "dedicated"),
        ("private_cluster", True, True),
        ("private_cluster", "false", False),
        ("api_server_ips", "20.1.2.3", (ip_network("20.1.2.3/32"),)),
        (
            "api_server_ips",
            ["20.1.2.3", "2001:db8::1"],
            (ip_network("20.1.2.3/32"), ip_network("2001:db8::1/128")),
        ),
        ("api_server_ips", ["20.1.2.3/32"], (ip_network("20.1.2.3/32"),)),
        ("region_cidrs", ["20.43.64.0/18"], (ip_network("20.43.64.0/18"),)),
        (
            "region_cidrs",
            "2001:db8::/32, 20.1.2.3",
            (ip_network("2001:db8::/32"), ip_network("20.1.2.3/32")),
        ),
    ],
)
def test_values_that_are_read(name: str, raw: object, value: object) -> None:
    assert read_value(PARAMETERS[name], raw) == value


@pytest.mark.parametrize(
    ("name", "raw", "what", "hint"),
    [
        ("location", "Japan East", "not a region's short name", "write japaneast"),
        ("location", "<location>", "not a region's short name", "write location"),
        ("location", "東日本", "not a region's short name", "location: japaneast"),
        ("location", "*", "not a region's short name", "location: japaneast"),
        ("location", "japaneast\n.evil", "not a region's short name", "write"),
        ("location", 5, "5 is not a text", "location: japaneast"),
        ("api_server_fqdn", "20.1.2.3", "is an address, not a name", "az aks show"),
        ("api_server_fqdn", "*.hcp.japaneast.azmk8s.io", "not a host name", "az aks show"),
        ("registry", "myregistry.azurecr.io", "not a registry's name", "write myregistry"),
        ("registry", "abc", "5 to 50", "registry: myregistry"),
        ("registry", "my*registry", "not a registry's name", "registry: myregistry"),
        ("registry", "ab.azurecr.io", "not a registry's name", "registry: myregistry"),
        ("regions", [], "the list is empty", "[eastus, westus]"),
        ("regions", "eastus,,westus", "empty item", "[eastus, westus]"),
        ("regions", ["eastus", 5], "is not a list of texts", "[eastus, westus]"),
        ("regions", {"eastus": 1}, "is not a list of texts", "[eastus, westus]"),
        ("regions", ["eastus", "West US"], "'West US'", "write westus"),
        ("regions", ["a"] * (MAX_ITEMS + 1), f"{MAX_ITEMS} are allowed", "[eastus, westus]"),
        ("data_endpoint", "dedicate", "is not blob or dedicated", "did you mean dedicated?"),
        ("data_endpoint", "zzz", "is not blob or dedicated", "data_endpoint: dedicated"),
        ("private_cluster", "yes", "neither true nor false", "private_cluster: true"),
        ("private_cluster", 1, "neither true nor false", "private_cluster: true"),
        ("api_server_ips", "api.example", "not an address or network", "[20.1.2.3]"),
        ("api_server_ips", ["20.1.2.0/24"], "is a network", "list each address"),
        ("api_server_ips", 20, "is not a list of texts", "[20.1.2.3]"),
        ("region_cidrs", ["0.0.0.0/0"], "is every address", "via: any"),
        ("region_cidrs", ["::/0"], "is every address", "via: any"),
        ("region_cidrs", ["20.43.64.1/18"], "host bits", "write 20.43.64.0/18"),
    ],
)
def test_values_that_are_refused_with_a_hint(name: str, raw: object, what: str, hint: str) -> None:
    problem = read_value(PARAMETERS[name], raw)
    assert isinstance(problem, ParameterProblem)
    assert problem.parameter == name
    assert what in problem.what
    assert hint in problem.hint


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_example_is_a_value(name: str) -> None:
    parameter = PARAMETERS[name]
    is_list = parameter.kind in {
        ParameterKind.ADDRESSES,
        ParameterKind.NETWORKS,
        ParameterKind.REGIONS,
    }
    text = parameter.example.strip("[]") if is_list else parameter.example
    assert not isinstance(read_value(parameter, text), ParameterProblem)
    assert parameter.name == name
