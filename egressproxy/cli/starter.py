"""The text of a first policy: what ``egressproxy init`` writes, from answers already checked.

It is written for a person to go on with: every requirement says what it is for, and those that were
not chosen stand as comments.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.catalog import Requirement, load_catalog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

CORE: Final = "aks/core"
TUNNEL: Final = "aks/tunnel"
API_SERVER: Final = "aks/api-server"
CUSTOM_DNS: Final = "aks/custom-dns"
REGISTRY: Final = "acr"

_BY_ANSWER: Final = frozenset({CORE, TUNNEL, API_SERVER, CUSTOM_DNS, REGISTRY})
_PLAIN: Final = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9-]+)*|[0-9]+(?:\.[0-9]+){3}(?:/[0-9]+)?")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a policy is started from; parameters are texts as the catalog reads them."""

    cloud: str
    location: str
    private_cluster: bool = False
    api_server_fqdn: str | None = None
    api_server_ips: tuple[str, ...] = ()
    dns_servers: tuple[str, ...] = ()
    registry: str | None = None
    regions: tuple[str, ...] = ()
    data_endpoint: str = "blob"
    add_ons: tuple[str, ...] = ()
    audit_until: date | None = None

    @property
    def shared(self) -> dict[str, str | bool | tuple[str, ...]]:
        """The policy's ``parameters``."""
        given: dict[str, str | bool | tuple[str, ...] | None] = {
            "location": self.location,
            "private_cluster": self.private_cluster,
            "api_server_fqdn": self.api_server_fqdn,
            "api_server_ips": self.api_server_ips,
            "dns_servers": self.dns_servers,
        }
        return {name: value for name, value in given.items() if value}

    @property
    def registry_options(self) -> dict[str, str | bool | tuple[str, ...]]:
        """The options of ``acr``."""
        options: dict[str, str | bool | tuple[str, ...]] = {"registry": self.registry or ""}
        if self.regions:
            options["regions"] = self.regions
        if self.data_endpoint != "blob":
            options["data_endpoint"] = self.data_endpoint
        return options


def add_ons(cloud: str) -> tuple[Requirement, ...]:
    """The requirements that a person chooses by name, in one cloud."""
    return tuple(
        requirement
        for requirement in load_catalog().requirements
        if requirement.id not in _BY_ANSWER and cloud in requirement.clouds
    )


def is_always_needed(requirement: Requirement, cloud: str) -> bool:
    """Whether a cloud's document requires it of clusters that other clouds exempt."""
    exempt_elsewhere = any(row.not_needed for row in requirement.rows)
    return exempt_elsewhere and not any(row.not_needed for row in requirement.rows_of(cloud))


def policy_text(answers: Answers) -> str:
    """The policy, with comments."""
    return "\n".join([*_head(answers), *_parameters(answers), *_requirements(answers), *_tail()])


def _head(answers: Answers) -> Iterator[str]:
    yield from (
        "# What an AKS cluster may reach; everything else is refused and logged with a reason.",
        "#   egressproxy catalog show aks/core          what a requirement allows, and why",
        "#   egressproxy policy show THIS-FILE          every rule that this file expands to",
        "#   egressproxy check NAME --policy THIS-FILE  what becomes of a name, and why",
        "version: 1",
        f"cloud: {answers.cloud}",
        "",
    )
    if answers.audit_until:
        yield "# Denies of names are recorded and not enforced until the end of this day (UTC)."
        yield "mode: audit"
        yield f"audit_until: {answers.audit_until}"
    else:
        yield "# To record denies first and enforce later: mode: audit, audit_until: YYYY-MM-DD"
        yield "mode: enforce"
    yield ""


def _parameters(answers: Answers) -> Iterator[str]:
    yield "parameters:"
    for name, value in answers.shared.items():
        yield f"  {name}: {scalar(value)}"
    if not answers.api_server_fqdn and not answers.private_cluster:
        yield "  # Without your API server's own name every cluster in the region is allowed:"
        yield "  # api_server_fqdn: (az aks show --query fqdn)"
    yield ""


def _requirements(answers: Answers) -> Iterator[str]:
    yield "# Each stands for rows of Microsoft's documents. `from: [group]` limits one to client"
    yield "# networks that `sources:` names so."
    yield "requirements:"
    catalog = load_catalog()
    skipped = []
    for requirement in catalog.requirements:
        if answers.cloud not in requirement.clouds:
            continue
        entry = _entry(requirement, answers)
        if entry is None:
            skipped.append(requirement)
            continue
        yield f"  # {requirement.title}."
        if requirement.id == REGISTRY and answers.data_endpoint == "blob":
            yield "  # Blob storage is every tenant's; data_endpoint: dedicated (Premium) is not."
        yield f"  - {entry}"
    yield ""
    yield "  # Not chosen. Take the # away for what the cluster uses."
    for requirement in skipped:
        is_needed = is_always_needed(requirement, answers.cloud)
        remark = " (this cloud's document requires it)" if is_needed else ""
        yield f"  # - {_example(requirement)}  # {requirement.title}{remark}"
    yield ""


def _entry(requirement: Requirement, answers: Answers) -> str | None:
    """The item of ``requirements:``, or ``None`` where it was not chosen."""
    chosen = {
        CORE: True,
        API_SERVER: bool(answers.api_server_ips),
        CUSTOM_DNS: bool(answers.dns_servers),
        REGISTRY: bool(answers.registry),
        TUNNEL: bool(answers.api_server_ips) and is_always_needed(requirement, answers.cloud),
    }
    if not chosen.get(requirement.id, requirement.id in answers.add_ons):
        return None
    if requirement.id == REGISTRY:
        options = (f"{name}: {scalar(v)}" for name, v in answers.registry_options.items())
        return f"{REGISTRY}: {{{', '.join(options)}}}"
    return f"{TUNNEL}: {{via: api-server}}" if requirement.id == TUNNEL else requirement.id


def _example(requirement: Requirement) -> str:
    examples = {
        TUNNEL: "aks/tunnel: {via: api-server, api_server_ips: [20.1.2.3]}",
        API_SERVER: "aks/api-server: {api_server_ips: [20.1.2.3]}",
        CUSTOM_DNS: "aks/custom-dns: {dns_servers: [10.0.0.10]}",
        REGISTRY: "acr: {registry: myregistry}",
    }
    return examples.get(requirement.id, requirement.id)


def _tail() -> Iterator[str]:
    yield from (
        "# Your own names, judged before the requirements, top to bottom; the first match decides.",
        "rules:",
        "  # - {name: github, to: [github.com, '*.github.com'], ports: [https]}",
        "  # - {name: ntp, to: [ntp.ubuntu.com], ports: ['udp:123']}",
        "  # - {name: trial, to: [api.example.com], ports: [https], until: 2026-12-31}",
        "",
    )


def scalar(value: str | bool | tuple[str, ...]) -> str:
    """A value as YAML reads it back."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(scalar, value))}]"
    is_plain = _PLAIN.fullmatch(value) and value not in _WORDS
    return value if is_plain else json.dumps(value)
