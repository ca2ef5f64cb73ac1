"""What the catalog says of a deny, by name and port, under a policy and without one."""

from __future__ import annotations

from typing import Any, Final

import pytest

from egressproxy.catalog import CLOUDS
from egressproxy.review.documented import by_port, known
from egressproxy.review.model import Class, Finding
from tests.review.subjects import subject

GLOBAL, CHINA, _ = CLOUDS
HTTP: Final[dict[str, Any]] = {"protocol": "http", "dst_port": 80}


def finding(
    name: str, held: tuple[str, ...] | None = (), cloud: str | None = GLOBAL, **more: Any
) -> Finding | None:
    found = known(subject(name, **more), cloud, held)
    return found.finding() if found else None


FOUND: dict[str, tuple[Finding | None, Class, str | None, str]] = {
    "harmless": (
        finding("md-1.blob.storage.azure.net"),
        Class.HARMLESS,
        None,
        "documented as harmless when blocked: Inner traffic of Azure Managed Disks",
    ),
    "optional": (
        finding("umsa1.blob.core.windows.net"),
        Class.OPTIONAL,
        None,
        "documented as optional: Manifests in which the Azure Linux VM agent",
    ),
    "harmless whatever is held": (
        finding("md-1.blob.storage.azure.net", ("aks/core",)),
        Class.HARMLESS,
        None,
        "harmless",
    ),
    "missing": (
        finding("packages.aks.azure.com"),
        Class.MISSING_REQUIREMENT,
        "aks/core",
        "needed by aks/core, which the policy does not list",
    ),
    "missing in one of two": (
        finding("x.ods.opinsights.azure.com"),
        Class.MISSING_REQUIREMENT,
        "aks/defender",
        "needed by aks/defender (and by aks/azure-monitor), which",
    ),
    "a requirement that is recommended": (
        finding("security.ubuntu.com", **HTTP),
        Class.OPTIONAL,
        "aks/ubuntu-updates",
        "recommended by aks/ubuntu-updates, which the policy does not list",
    ),
    "required before recommended": (
        finding("v.vault.azure.net"),
        Class.MISSING_REQUIREMENT,
        "aks/key-vault",
        "needed by aks/key-vault (and by aks/istio, aks/app-routing), which",
    ),
    "TLS that nobody read": (
        finding("packages.aks.azure.com", protocol="tcp"),
        Class.MISSING_REQUIREMENT,
        "aks/core",
        "aks/core",
    ),
    "as noted, without a policy": (
        finding("security.ubuntu.com", None, None, note="needed-by: aks/ubuntu-updates", **HTTP),
        Class.OPTIONAL,
        "aks/ubuntu-updates",
        "recommended",
    ),
    "as noted by another catalog": (
        finding("x.example", None, None, note="harmless"),
        Class.HARMLESS,
        None,
        "documented as harmless when blocked",
    ),
    "as noted by another catalog, optional": (
        finding("x.example", None, None, note="optional: updates"),
        Class.OPTIONAL,
        None,
        "documented as optional: updates",
    ),
    "as noted in another cloud": (
        finding("management.chinacloudapi.cn", None, None, note="needed-by: aks/core"),
        Class.MISSING_REQUIREMENT,
        "aks/core",
        "needed by aks/core",
    ),
}


@pytest.mark.parametrize(("found", "kind", "requirement", "why"), FOUND.values(), ids=FOUND)
def test_findings(found: Finding | None, kind: Class, requirement: str | None, why: str) -> None:
    assert found is not None
    assert (found.kind, found.requirement) == (kind, requirement)
    assert why in found.why


def test_a_missing_requirement_has_its_symptom() -> None:
    found = finding("packages.aks.azure.com")
    assert found is not None
    assert "CSE exit code 31" in found.symptom


NONE: dict[str, Finding | None] = {
    "a stranger": finding("a.example"),
    "another port": finding("packages.aks.azure.com", dst_port=8443),
    "another protocol": finding("packages.aks.azure.com", protocol="udp"),
    "held already": finding("packages.aks.azure.com", ("aks/core",)),
    "held, and in others too": finding("x.ods.opinsights.azure.com", ("aks/azure-monitor",)),
    "anybody's storage account": finding("mine.blob.core.windows.net"),
    "another cloud's": finding("management.chinacloudapi.cn"),
    "not noted then": finding("packages.aks.azure.com", None, None),
    "a note of something else": finding("packages.aks.azure.com", None, None, note="not open"),
    "a note of nothing there": finding("a.example", None, None, note="needed-by: aks/core"),
    "a name from nowhere": finding("\x00<b>\u202e" * 1000),
}


@pytest.mark.parametrize("found", NONE.values(), ids=NONE)
def test_the_catalog_has_nothing_to_say(found: Finding | None) -> None:
    assert found is None


def test_no_name_is_in_no_catalog() -> None:
    assert known(subject(None), GLOBAL, ()) is None


def test_what_is_held_has_its_symptom_all_the_same() -> None:
    found = known(subject("mcr.microsoft.com"), GLOBAL, ("aks/core",))
    assert found is not None
    assert "CSE exit code 50" in found.symptom


PORTS = {
    "time": ({"protocol": "udp", "dst_port": 123}, "aks/ntp"),
    "tunnel": ({"protocol": "udp", "dst_port": 1194}, "konnectivity"),
    "older tunnel": ({"protocol": "tcp", "dst_port": 9000}, "konnectivity"),
    "not its protocol": ({"protocol": "tcp", "dst_port": 123}, ""),
    "any other": ({"protocol": "tcp", "dst_port": 25}, ""),
}


@pytest.mark.parametrize(("more", "words"), PORTS.values(), ids=PORTS)
def test_ports_that_a_requirement_has_everywhere(more: dict[str, Any], words: str) -> None:
    said = by_port(subject(None, **more))
    assert words in said if words else said == ""
    assert by_port(subject("a.example", **more)) == ""
