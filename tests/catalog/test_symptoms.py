"""What people see while a documented name is denied: the words, and where they come from."""

from __future__ import annotations

import re
from typing import Final

import pytest

from egressproxy.catalog import CLOUDS, Kind, load_catalog
from egressproxy.catalog.symptoms import symptom

GLOBAL, CHINA, GOVERNMENT = CLOUDS

PUBLISHED: Final = {25, 26, 27, 28, 31, 41, 50, 51, 52, 124}
"""Exit codes in cse_helpers.sh of Azure/AgentBaker that a refused name leads to."""

SEEN = {
    "outbound connection": ("mcr.microsoft.com", GLOBAL, "CSE exit code 50"),
    "API server": ("x.hcp.japaneast.azmk8s.io", GLOBAL, "CSE exit code 51"),
    "konnectivity": ("x.hcp.japaneast.azmk8s.io", GLOBAL, "kubectl logs, exec and port-forward"),
    "binaries": ("packages.aks.azure.com", GLOBAL, "CSE exit code 31"),
    "CNI": ("acs-mirror.azureedge.net", GOVERNMENT, "41 (CNI plugins)"),
    "layers": ("westus2.data.mcr.microsoft.com", GLOBAL, "fail at the layers"),
    "no exit code is documented for China": ("mcr.microsoft.com", CHINA, "are not pulled"),
    "what a cluster needs before an add-on": ("login.microsoftonline.com", GLOBAL, "Azure API"),
    "optional": ("security.ubuntu.com", GLOBAL, "security updates"),
}


@pytest.mark.parametrize(("name", "cloud", "words"), SEEN.values(), ids=SEEN)
def test_symptoms(name: str, cloud: str, words: str) -> None:
    assert words in symptom(name, cloud)


NOTHING = {
    "stranger": ("example.com", GLOBAL),
    "harmless": ("md-1.blob.storage.azure.net", GLOBAL),
    "another cloud's": ("management.chinacloudapi.cn", GLOBAL),
    "no name": ("", GLOBAL),
    "hostile": ("\x00\u202e<script>." * 2000, GLOBAL),
    "no cloud": ("mcr.microsoft.com", "Moon"),
}


@pytest.mark.parametrize(("name", "cloud"), NOTHING.values(), ids=NOTHING)
def test_nothing_is_seen(name: str, cloud: str) -> None:
    assert symptom(name, cloud) == ""


def test_only_on_the_documented_port() -> None:
    assert "50" in symptom("mcr.microsoft.com", GLOBAL, port=443)
    assert symptom("mcr.microsoft.com", GLOBAL, port=80) == ""


ROWS = [row for requirement in load_catalog().requirements for row in requirement.rows]


def test_only_exit_codes_that_are_published() -> None:
    found = {
        int(number)
        for row in ROWS
        for part in re.findall(r"CSE exit code ([^;]*)", row.symptom)
        for number in re.findall(r"\b\d{2,3}\b", part)
    }
    assert found <= PUBLISHED
    assert {31, 41, 50, 51, 52} <= found


def test_what_every_cluster_needs_says_what_is_seen() -> None:
    assert [
        row.id
        for row in ROWS
        if row.requirement == "aks/core" and row.kind is Kind.REQUIRED and not row.symptom
    ] == []


def test_symptoms_go_on_from_while_denied() -> None:
    assert [row.symptom for row in ROWS if row.symptom.endswith(".")] == []
