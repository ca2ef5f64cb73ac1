from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.catalog import CLOUDS, Notes, load_catalog, note
from egressproxy.catalog.notes import MAX_MEMO
from egressproxy.catalog.templates import expression
from egressproxy.names import DnsName

GLOBAL, CHINA = "AzureCloud", "AzureChinaCloud"
EVERYTHING = frozenset(requirement.id for requirement in load_catalog().requirements)


@pytest.mark.parametrize(
    ("name", "cloud", "held", "expected"),
    [
        ("md-hdd-abc.z1.blob.storage.azure.net", GLOBAL, (), "harmless"),
        ("md-x.blob.storage.azure.net", CHINA, EVERYTHING, "harmless"),
        ("md.blob.storage.azure.net", GLOBAL, (), ""),
        ("blob.storage.azure.net", GLOBAL, (), ""),
        ("x.md-y.blob.storage.azure.net", GLOBAL, (), ""),
        ("umsa5kvlg.blob.core.windows.net", GLOBAL, (), "optional: vm-agent-updates"),
        ("umsa5kvlg.blob.core.windows.net", GLOBAL, EVERYTHING, "optional: vm-agent-updates"),
        ("secrets.blob.core.windows.net", GLOBAL, (), ""),
        (
            "x.in.applicationinsights.azure.com",
            GLOBAL,
            ("aks/core",),
            "needed-by: aks/azure-monitor",
        ),
        ("a.b.in.applicationinsights.azure.com", GLOBAL, (), "needed-by: aks/azure-monitor"),
        ("in.applicationinsights.azure.com", GLOBAL, (), ""),
        ("x.in.applicationinsights.azure.com", GLOBAL, ("aks/azure-monitor",), ""),
        ("data.policy.core.windows.net", GLOBAL, (), "needed-by: aks/azure-policy"),
        ("data.policy.azure.cn", GLOBAL, (), ""),
        ("data.policy.azure.cn", CHINA, (), "needed-by: aks/azure-policy"),
        (
            "dc.services.visualstudio.com",
            GLOBAL,
            ("aks/core",),
            "needed-by: aks/azure-monitor, aks/azure-policy",
        ),
        ("dc.services.visualstudio.com", GLOBAL, ("aks/azure-policy",), ""),
        (
            "westeurope.dp.kubernetesconfiguration.azure.com",
            GLOBAL,
            (),
            "needed-by: aks/cluster-extensions",
        ),
        ("a.b.dp.kubernetesconfiguration.azure.com", GLOBAL, (), ""),
        ("x.hcp.eastus.azmk8s.io", GLOBAL, (), "needed-by: aks/core"),
        ("someregistry.azurecr.io", GLOBAL, ("aks/core",), "needed-by: acr"),
        ("someregistry.azurecr.io", GLOBAL, ("acr",), ""),
        ("r.eastus.data.azurecr.io", GLOBAL, (), "needed-by: acr"),
        ("ntp.ubuntu.com", GLOBAL, (), "needed-by: aks/ntp"),
        ("security.ubuntu.com", GLOBAL, ("aks/core",), "needed-by: aks/ubuntu-updates"),
        (
            "myvault.vault.azure.net",
            GLOBAL,
            (),
            "needed-by: aks/key-vault, aks/istio, aks/app-routing",
        ),
        ("github.com", GLOBAL, (), ""),
        ("com", GLOBAL, (), ""),
        ("mcr.microsoft.com", "no-such-cloud", (), ""),
    ],
)
def test_what_is_said_of_a_denied_name(
    name: str, cloud: str, held: tuple[str, ...] | frozenset[str], expected: str
) -> None:
    assert note(DnsName(name), cloud, held) == expected
    notes = Notes(cloud, held)
    assert [notes.of(DnsName(name)), notes.of(DnsName(name))] == [expected, expected]


def test_the_memo_is_bounded() -> None:
    notes = Notes(GLOBAL, ())
    for number in range(MAX_MEMO + 10):
        notes.of(DnsName(f"n{number}.example"))
    assert len(notes._memo) <= MAX_MEMO


LABELS = st.sampled_from(
    ["a", "md-x", "umsa1", "blob", "core", "windows", "net", "azure", "com", "storage", "hcp", "x"]
)


@given(st.lists(LABELS, min_size=1, max_size=8), st.sampled_from(CLOUDS))
def test_the_tree_agrees_with_a_loop_over_all_rows(labels: list[str], cloud: str) -> None:
    name = DnsName(".".join(labels))
    rows = [row for one in load_catalog().requirements for row in one.rows_of(cloud)]
    rows.sort(key=lambda row: not row.is_note)
    means = [r for r in rows if any(expression(t).fullmatch(name) for t in r.names)]
    expected = ""
    if means and means[0].note:
        expected = means[0].note
    elif needed := dict.fromkeys(row.requirement for row in means if row.suggested):
        expected = f"needed-by: {', '.join(needed)}"
    assert note(name, cloud, ()) == expected


def test_a_name_of_127_labels_is_walked() -> None:
    assert note(DnsName(".".join("a" * 127)), GLOBAL, ()) == ""
    assert note(DnsName("a." * 110 + "data.mcr.microsoft.com"), GLOBAL, ()).startswith("needed-by")
