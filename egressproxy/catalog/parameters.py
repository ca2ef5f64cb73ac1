"""The parameters that rows of the catalog use, and how a value from a policy or a flag is read.

Lists may be written as one text, with or without commas, so that ``--set regions=eastus,westus``
and YAML's ``regions: [eastus, westus]`` are the same.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, assert_never

from egressproxy.errors import InvalidNameError, ParameterProblem, nearest
from egressproxy.names import DnsName

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    Value = str | bool | tuple[str, ...] | tuple[IPv4Network | IPv6Network, ...]

MAX_ITEMS: Final = 5000
"""Addresses or regions in one parameter; the largest service tag has fewer prefixes."""

_REGION = re.compile(r"[a-z][a-z0-9]{2,31}", re.ASCII)
# Names are alphanumeric; a registry with a domain name label carries a hyphen and a hash.
_REGISTRY = re.compile(r"[a-z0-9]{5,50}(?:-[a-z0-9]{1,12})?", re.ASCII)


class ParameterKind(StrEnum):
    """How a value is read."""

    REGION = "region"
    REGIONS = "regions"
    NAME = "host name"
    ADDRESSES = "addresses"
    NETWORKS = "networks"
    REGISTRY = "registry name"
    CHOICE = "choice"
    FLAG = "true or false"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; ``default`` is the value where a policy says nothing."""

    name: str
    kind: ParameterKind
    about: str
    example: str
    choices: tuple[str, ...] = ()
    default: str | bool | None = None

    @property
    def hint(self) -> str:
        """What to write and what it means."""
        return f"{self.name}: {self.example}, {self.about}"


PARAMETERS: Final = {
    parameter.name: parameter
    for parameter in (
        Parameter("location", ParameterKind.REGION, "the cluster's region", "japaneast"),
        Parameter(
            "api_server_fqdn",
            ParameterKind.NAME,
            "the API server's own name (az aks show --query fqdn)",
            "lab-1a2b.hcp.japaneast.azmk8s.io",
        ),
        Parameter(
            "private_cluster",
            ParameterKind.FLAG,
            "true where nodes reach the API server over private networking",
            "true",
            default=False,
        ),
        Parameter(
            "api_server_ips",
            ParameterKind.ADDRESSES,
            "the API server's public addresses, known once the cluster exists",
            "[20.1.2.3]",
        ),
        Parameter(
            "region_cidrs",
            ParameterKind.NETWORKS,
            "the region's networks in the service tag file",
            "[20.43.64.0/18]",
        ),
        Parameter("dns_servers", ParameterKind.ADDRESSES, "the custom DNS servers", "[10.0.0.10]"),
        Parameter(
            "registry",
            ParameterKind.REGISTRY,
            "the registry's name without its domain",
            "myregistry",
        ),
        Parameter(
            "regions",
            ParameterKind.REGIONS,
            "every region the registry is in or replicated to",
            "[eastus, westus]",
        ),
        Parameter(
            "data_endpoint",
            ParameterKind.CHOICE,
            "where layers come from: shared blob storage or dedicated data endpoints",
            "dedicated",
            choices=("blob", "dedicated"),
            default="blob",
        ),
        Parameter(
            "regional_endpoints",
            ParameterKind.FLAG,
            "true where clients log in to one region's endpoint",
            "true",
            default=False,
        ),
    )
}
"""Every parameter by name."""


def read_value(parameter: Parameter, raw: object) -> Value | ParameterProblem:
    """The value as rows use it, or what is wrong with it.

    ``raw`` is what YAML or a flag gave: a text, a flag or a list. Addresses and networks become
    networks, regions a tuple of texts.
    """
    match parameter.kind:
        case ParameterKind.FLAG:
            return _flag(parameter, raw)
        case ParameterKind.REGIONS:
            return _regions(parameter, raw)
        case ParameterKind.ADDRESSES | ParameterKind.NETWORKS:
            return _networks(parameter, raw)
        case (
            ParameterKind.REGION
            | ParameterKind.NAME
            | ParameterKind.REGISTRY
            | ParameterKind.CHOICE
        ):
            if not isinstance(raw, str):
                return _wrong(parameter, f"{raw!r} is not a text")
            return _text(parameter, raw.strip())
        case _:
            assert_never(parameter.kind)


def _wrong(parameter: Parameter, what: str, hint: str = "") -> ParameterProblem:
    return ParameterProblem(parameter.name, f"{parameter.name}: {what}", hint or parameter.hint)


def _flag(parameter: Parameter, raw: object) -> bool | ParameterProblem:
    if isinstance(raw, bool):
        return raw
    if raw in ("true", "false"):
        return raw == "true"
    return _wrong(parameter, f"{raw!r} is neither true nor false")


def _text(parameter: Parameter, text: str) -> str | ParameterProblem:
    match parameter.kind:
        case ParameterKind.REGION:
            return _region(parameter, text)
        case ParameterKind.REGISTRY:
            return _registry(parameter, text)
        case ParameterKind.CHOICE:
            return _choice(parameter, text)
        case _:
            try:
                return DnsName(text)
            except InvalidNameError as error:
                return _wrong(parameter, error.message)


def _region(parameter: Parameter, text: str) -> str | ParameterProblem:
    if _REGION.fullmatch(text):
        return text
    short = re.sub(r"[^a-z0-9]", "", text.lower())
    hint = f"write {short}" if _REGION.fullmatch(short) else ""
    return _wrong(parameter, f"{text!r} is not a region's short name", hint)


def _registry(parameter: Parameter, text: str) -> str | ParameterProblem:
    name = text.lower()
    if _REGISTRY.fullmatch(name):
        return name
    first = name.partition(".")[0]
    hint = f"write {first}" if "." in name and _REGISTRY.fullmatch(first) else ""
    return _wrong(
        parameter, f"{text!r} is not a registry's name (5 to 50 letters and digits)", hint
    )


def _choice(parameter: Parameter, text: str) -> str | ParameterProblem:
    if text in parameter.choices:
        return text
    choices = " or ".join(parameter.choices)
    return _wrong(
        parameter, f"{text!r} is not {choices}", nearest(text, parameter.choices, count=1)
    )


def _items(parameter: Parameter, raw: object) -> list[str] | ParameterProblem:
    if isinstance(raw, str):
        items = [item.strip() for item in raw.split(",")]
    elif isinstance(raw, Sequence) and all(isinstance(item, str) for item in raw):
        items = [item.strip() for item in raw]
    else:
        return _wrong(parameter, f"{raw!r} is not a list of texts")
    if not items or "" in items:
        return _wrong(parameter, "the list is empty or has an empty item")
    if len(items) > MAX_ITEMS:
        return _wrong(parameter, f"{len(items)} items, {MAX_ITEMS} are allowed")
    return items


def _regions(parameter: Parameter, raw: object) -> tuple[str, ...] | ParameterProblem:
    items = _items(parameter, raw)
    if isinstance(items, ParameterProblem):
        return items
    regions = [_region(parameter, item) for item in items]
    for region in regions:
        if isinstance(region, ParameterProblem):
            return region
    return tuple(dict.fromkeys(str(region) for region in regions))


def _networks(
    parameter: Parameter, raw: object
) -> tuple[IPv4Network | IPv6Network, ...] | ParameterProblem:
    items = _items(parameter, raw)
    if isinstance(items, ParameterProblem):
        return items
    networks: dict[IPv4Network | IPv6Network, None] = {}
    for item in items:
        network = _network(parameter, item)
        if isinstance(network, ParameterProblem):
            return network
        networks[network] = None
    return tuple(networks)


def _network(parameter: Parameter, item: str) -> IPv4Network | IPv6Network | ParameterProblem:
    try:
        network = ipaddress.ip_network(item, strict=False)
    except ValueError:
        return _wrong(parameter, f"{item!r} is not an address or network")
    if parameter.kind is ParameterKind.ADDRESSES and network.num_addresses != 1:
        return _wrong(parameter, f"{item!r} is a network", "list each address")
    if network.prefixlen == 0:
        return _wrong(parameter, f"{item!r} is every address", "via: any says so openly")
    if "/" in item and str(network.network_address) != str(
        ipaddress.ip_address(item.partition("/")[0])
    ):
        return _wrong(parameter, f"{item!r} has host bits set", f"write {network}")
    return network
