"""Every row of the two documents, copied here by hand from the documents and not from our YAML.

A line is one destination: cloud, requirement, via, protocol, port, destination. ``L`` is the
cluster's region in the documents' ``<location>``, ``<Region>`` and ``<cluster-region-name>``. The
catalog must give these and nothing else, apart from what ``OURS`` and ``NEWER`` list.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest

from egressproxy.catalog import CLOUDS, Kind, expand, load_catalog

GLOBAL, CHINA, GOV = "AzureCloud", "AzureChinaCloud", "AzureUSGovernment"
ALL = (GLOBAL, CHINA, GOV)
L = "japaneast"


class Seen(NamedTuple):
    cloud: str
    requirement: str
    via: str | None
    port: str
    destination: str


def rows(
    clouds: str | tuple[str, ...], requirement: str, port: str, *names: str, via: str | None = None
) -> list[Seen]:
    clouds = (clouds,) if isinstance(clouds, str) else clouds
    return [Seen(cloud, requirement, via, port, name) for cloud in clouds for name in names]


def tunnel(clouds: tuple[str, ...], port: str) -> list[Seen]:
    """``*`` or the service tag or the region's CIDRs or the API server's public IP."""
    return [
        *rows(clouds, "aks/tunnel", port, "any address", via="any"),
        *rows(clouds, "aks/tunnel", port, f"tag:AzureCloud.{L}", via="service-tag"),
        *rows(clouds, "aks/tunnel", port, "20.43.64.0/18", via="cidrs"),
        *rows(clouds, "aks/tunnel", port, "20.1.2.3/32", via="api-server"),
    ]


DOCUMENTED: Final = [
    # Azure Global required network rules, and the two other clouds'
    *tunnel(ALL, "udp:1194"),
    *tunnel(ALL, "tcp:9000"),
    *tunnel((CHINA,), "tcp:22"),
    *rows(ALL, "aks/ntp", "udp:123", "any address", via="any"),
    *rows(ALL, "aks/ntp", "udp:123", "ntp.ubuntu.com", via="fqdn"),
    *rows(ALL, "aks/custom-dns", "udp:53", "10.0.0.10/32"),
    *rows(ALL, "aks/api-server", "tcp:443", "20.1.2.3/32"),
    # Azure Global required FQDN / application rules
    *rows(GLOBAL, "aks/core", "tls:443", f"*.hcp.{L}.azmk8s.io"),
    *rows(GLOBAL, "aks/core", "tls:443", "mcr.microsoft.com"),
    *rows(GLOBAL, "aks/core", "tls:443", "*.data.mcr.microsoft.com", "mcr-0001.mcr-msedge.net"),
    *rows(GLOBAL, "aks/core", "tls:443", "management.azure.com"),
    *rows(GLOBAL, "aks/core", "tls:443", "login.microsoftonline.com"),
    *rows(GLOBAL, "aks/core", "tls:443", "packages.microsoft.com"),
    *rows(GLOBAL, "aks/core", "tls:443", "acs-mirror.azureedge.net"),
    *rows(GLOBAL, "aks/core", "tls:443", "packages.aks.azure.com"),
    # 21Vianet
    *rows(CHINA, "aks/core", "tls:443", f"*.hcp.{L}.cx.prod.service.azk8s.cn"),
    *rows(CHINA, "aks/core", "tls:443", f"*.tun.{L}.cx.prod.service.azk8s.cn"),
    *rows(CHINA, "aks/core", "tls:443", "mcr.microsoft.com"),
    *rows(CHINA, "aks/core", "tls:443", "*.data.mcr.microsoft.com"),
    *rows(CHINA, "aks/core", "tls:443", "management.chinacloudapi.cn"),
    *rows(CHINA, "aks/core", "tls:443", "login.chinacloudapi.cn"),
    *rows(CHINA, "aks/core", "tls:443", "packages.microsoft.com"),
    *rows(CHINA, "aks/core", "tls:443", "*.azk8s.cn"),
    *rows(CHINA, "aks/core", "tls:443", "mcr.azure.cn", "*.data.mcr.azure.cn"),
    # US Government
    *rows(GOV, "aks/core", "tls:443", f"*.hcp.{L}.cx.aks.containerservice.azure.us"),
    *rows(GOV, "aks/core", "tls:443", "mcr.microsoft.com"),
    *rows(GOV, "aks/core", "tls:443", "*.data.mcr.microsoft.com"),
    *rows(GOV, "aks/core", "tls:443", "management.usgovcloudapi.net"),
    *rows(GOV, "aks/core", "tls:443", "login.microsoftonline.us"),
    *rows(GOV, "aks/core", "tls:443", "packages.microsoft.com"),
    *rows(GOV, "aks/core", "tls:443", "acs-mirror.azureedge.net"),
    *rows(GOV, "aks/core", "tls:443", "packages.aks.azure.com"),
    # Optional recommended FQDN / application rules
    *rows(ALL, "aks/ubuntu-updates", "http:80", "security.ubuntu.com"),
    *rows(ALL, "aks/ubuntu-updates", "http:80", "azure.archive.ubuntu.com"),
    *rows(ALL, "aks/ubuntu-updates", "http:80", "changelogs.ubuntu.com"),
    *rows(ALL, "aks/ubuntu-updates", "tls:443", "snapshot.ubuntu.com"),
    # GPU
    *rows(ALL, "aks/gpu", "tls:443", "nvidia.github.io"),
    *rows(ALL, "aks/gpu", "tls:443", "us.download.nvidia.com"),
    *rows(ALL, "aks/gpu", "tls:443", "download.docker.com"),
    # Windows
    *rows(ALL, "aks/windows", "tls:443", "onegetcdn.azureedge.net", "go.microsoft.com"),
    *rows(ALL, "aks/windows", "http:80", "*.mp.microsoft.com", "www.msftconnecttest.com"),
    *rows(ALL, "aks/windows", "http:80", "ctldl.windowsupdate.com"),
    # Workload identity
    *rows(GLOBAL, "aks/workload-identity", "tls:443", "login.microsoftonline.com"),
    *rows(CHINA, "aks/workload-identity", "tls:443", "login.chinacloudapi.cn"),
    *rows(GOV, "aks/workload-identity", "tls:443", "login.microsoftonline.us"),
    # Microsoft Defender for Containers
    *rows(GLOBAL, "aks/defender", "tls:443", "login.microsoftonline.com"),
    *rows(GOV, "aks/defender", "tls:443", "login.microsoftonline.us"),
    *rows(CHINA, "aks/defender", "tls:443", "login.microsoftonline.cn"),
    *rows(GLOBAL, "aks/defender", "tls:443", "*.ods.opinsights.azure.com"),
    *rows(GOV, "aks/defender", "tls:443", "*.ods.opinsights.azure.us"),
    *rows(CHINA, "aks/defender", "tls:443", "*.ods.opinsights.azure.cn"),
    *rows(GLOBAL, "aks/defender", "tls:443", "*.oms.opinsights.azure.com"),
    *rows(GOV, "aks/defender", "tls:443", "*.oms.opinsights.azure.us"),
    *rows(CHINA, "aks/defender", "tls:443", "*.oms.opinsights.azure.cn"),
    # Azure Key Vault provider for Secrets Store CSI Driver, and the add-ons that refer to it
    *rows(GLOBAL, "aks/key-vault", "tls:443", "vault.azure.net"),
    *rows(GOV, "aks/key-vault", "tls:443", "*.vault.usgovcloudapi.net"),
    *rows(GLOBAL, "aks/istio", "tls:443", "vault.azure.net"),
    *rows(GOV, "aks/istio", "tls:443", "*.vault.usgovcloudapi.net"),
    *rows(GLOBAL, "aks/app-routing", "tls:443", "vault.azure.net"),
    *rows(GOV, "aks/app-routing", "tls:443", "*.vault.usgovcloudapi.net"),
    # Azure Monitor: required network rules
    *rows(ALL, "aks/azure-monitor", "tcp:443", "tag:AzureMonitor", via="service-tag"),
    # Azure Monitor: public cloud
    *rows(GLOBAL, "aks/azure-monitor", "tls:443", "*.ods.opinsights.azure.com", via="fqdn"),
    *rows(GLOBAL, "aks/azure-monitor", "tls:443", "*.oms.opinsights.azure.com", via="fqdn"),
    *rows(GLOBAL, "aks/azure-monitor", "tls:443", "dc.services.visualstudio.com", via="fqdn"),
    *rows(GLOBAL, "aks/azure-monitor", "tls:443", "*.in.applicationinsights.azure.com", via="fqdn"),
    *rows(GLOBAL, "aks/azure-monitor", "tls:443", "*.monitoring.azure.com", via="fqdn"),
    *rows(GLOBAL, "aks/azure-monitor", "tls:443", "login.microsoftonline.com"),
    *rows(
        GLOBAL,
        "aks/azure-monitor",
        "tls:443",
        "global.handler.control.monitor.azure.com",
        "*.ingest.monitor.azure.com",
        "*.metrics.ingest.monitor.azure.com",
        f"{L}.handler.control.monitor.azure.com",
        via="fqdn",
    ),
    # Azure Monitor: 21Vianet
    *rows(CHINA, "aks/azure-monitor", "tls:443", "*.ods.opinsights.azure.cn", via="fqdn"),
    *rows(CHINA, "aks/azure-monitor", "tls:443", "*.oms.opinsights.azure.cn", via="fqdn"),
    *rows(CHINA, "aks/azure-monitor", "tls:443", "dc.services.visualstudio.com"),
    *rows(CHINA, "aks/azure-monitor", "tls:443", "*.in.applicationinsights.azure.com"),
    *rows(
        CHINA,
        "aks/azure-monitor",
        "tls:443",
        "global.handler.control.monitor.azure.cn",
        f"{L}.handler.control.monitor.azure.cn",
        "*.ingest.monitor.azure.cn",
        "*.metrics.ingest.monitor.azure.cn",
        via="fqdn",
    ),
    # Azure Monitor: Government
    *rows(GOV, "aks/azure-monitor", "tls:443", "*.ods.opinsights.azure.us", via="fqdn"),
    *rows(GOV, "aks/azure-monitor", "tls:443", "*.oms.opinsights.azure.us", via="fqdn"),
    *rows(GOV, "aks/azure-monitor", "tls:443", "dc.services.visualstudio.com"),
    *rows(GOV, "aks/azure-monitor", "tls:443", "*.in.applicationinsights.azure.com"),
    *rows(
        GOV,
        "aks/azure-monitor",
        "tls:443",
        "global.handler.control.monitor.azure.us",
        f"{L}.handler.control.monitor.azure.us",
        "*.ingest.monitor.azure.us",
        "*.metrics.ingest.monitor.azure.us",
        via="fqdn",
    ),
    # Azure Policy
    *rows(GLOBAL, "aks/azure-policy", "tls:443", "data.policy.core.windows.net"),
    *rows(GLOBAL, "aks/azure-policy", "tls:443", "store.policy.core.windows.net"),
    *rows(GLOBAL, "aks/azure-policy", "tls:443", "dc.services.visualstudio.com"),
    *rows(CHINA, "aks/azure-policy", "tls:443", "data.policy.azure.cn"),
    *rows(CHINA, "aks/azure-policy", "tls:443", "store.policy.azure.cn"),
    *rows(GOV, "aks/azure-policy", "tls:443", "data.policy.azure.us"),
    *rows(GOV, "aks/azure-policy", "tls:443", "store.policy.azure.us"),
    # AKS cost analysis add-on
    *rows(GLOBAL, "aks/cost-analysis", "tls:443", "management.azure.com"),
    *rows(GOV, "aks/cost-analysis", "tls:443", "management.usgovcloudapi.net"),
    *rows(CHINA, "aks/cost-analysis", "tls:443", "management.chinacloudapi.cn"),
    *rows(GLOBAL, "aks/cost-analysis", "tls:443", "login.microsoftonline.com"),
    *rows(GOV, "aks/cost-analysis", "tls:443", "login.microsoftonline.us"),
    *rows(CHINA, "aks/cost-analysis", "tls:443", "login.microsoftonline.cn"),
    # Cluster extensions
    *rows(GLOBAL, "aks/cluster-extensions", "tls:443", f"{L}.dp.kubernetesconfiguration.azure.com"),
    *rows(GLOBAL, "aks/cluster-extensions", "tls:443", "mcr.microsoft.com"),
    *rows(GLOBAL, "aks/cluster-extensions", "tls:443", "*.data.mcr.microsoft.com"),
    *rows(GLOBAL, "aks/cluster-extensions", "tls:443", "arcmktplaceprod.azurecr.io"),
    *(
        line
        for region in ("centralindia", "japaneast", "westus2", "westeurope", "eastus")
        for line in rows(
            GLOBAL,
            "aks/cluster-extensions",
            "tls:443",
            f"arcmktplaceprod.{region}.data.azurecr.io",
        )
    ),
    *rows(GLOBAL, "aks/cluster-extensions", "tls:443", "*.ingestion.msftcloudes.com"),
    *rows(GLOBAL, "aks/cluster-extensions", "tls:443", "*.microsoftmetrics.com"),
    *rows(GLOBAL, "aks/cluster-extensions", "tls:443", "marketplaceapi.microsoft.com"),
    *rows(GOV, "aks/cluster-extensions", "tls:443", f"{L}.dp.kubernetesconfiguration.azure.us"),
    *rows(GOV, "aks/cluster-extensions", "tls:443", "mcr.microsoft.com"),
    *rows(GOV, "aks/cluster-extensions", "tls:443", "*.data.mcr.microsoft.com"),
    # The container registry's document
    *rows(GLOBAL, "acr", "tls:443", "myregistry.azurecr.io", via="fqdn"),
    *rows(GLOBAL, "acr", "tls:443", "azurecr.io", via="fqdn"),
    *rows(GLOBAL, "acr", "tls:443", "*.blob.core.windows.net", via="fqdn"),
    *rows(GLOBAL, "acr", "tls:443", "myregistry.eastus.data.azurecr.io", via="fqdn"),
    *rows(GLOBAL, "acr", "tls:443", "myregistry.westus.data.azurecr.io", via="fqdn"),
    *rows(ALL, "acr", "tcp:443", "tag:AzureContainerRegistry", via="service-tag"),
    *rows(ALL, "acr", "tcp:443", "tag:AzureContainerRegistry.eastus", via="service-tag"),
    *rows(ALL, "acr", "tcp:443", "tag:AzureContainerRegistry.westus", via="service-tag"),
    *rows(ALL, "acr", "tcp:443", "tag:Storage", via="service-tag"),
    *rows(ALL, "acr", "tcp:443", "tag:Storage.eastus", via="service-tag"),
    *rows(ALL, "acr", "tcp:443", "tag:Storage.westus", via="service-tag"),
    # The guidance for MCR, to which it refers
    *rows(ALL, "mcr", "tls:443", "mcr.microsoft.com", "*.data.mcr.microsoft.com", via="fqdn"),
]

NEWER: Final = [
    *rows(ALL, "aks/defender", "tls:443", "*.cloud.defender.microsoft.com"),
    *rows(GLOBAL, "acr", "tls:443", "myregistry.eastus.geo.azurecr.io", via="fqdn"),
    *rows(GLOBAL, "acr", "tls:443", "myregistry.westus.geo.azurecr.io", via="fqdn"),
    *rows(ALL, "mcr", "tcp:443", "tag:MicrosoftContainerRegistry", via="service-tag"),
    *rows(ALL, "mcr", "tcp:443", "tag:AzureFrontDoor.FirstParty", via="service-tag"),
]

OURS: Final = [
    *rows(ALL, "aks/custom-dns", "tcp:53", "10.0.0.10/32"),
    *rows(GLOBAL, "aks/key-vault", "tls:443", "*.vault.azure.net"),
    *rows(GLOBAL, "aks/istio", "tls:443", "*.vault.azure.net"),
    *rows(GLOBAL, "aks/app-routing", "tls:443", "*.vault.azure.net"),
    *rows(CHINA, "acr", "tls:443", "myregistry.azurecr.cn", "azurecr.cn", via="fqdn"),
    *rows(CHINA, "acr", "tls:443", "*.blob.core.chinacloudapi.cn", via="fqdn"),
    *rows(CHINA, "acr", "tls:443", "myregistry.eastus.data.azurecr.cn", via="fqdn"),
    *rows(CHINA, "acr", "tls:443", "myregistry.westus.data.azurecr.cn", via="fqdn"),
    *rows(GOV, "acr", "tls:443", "myregistry.azurecr.us", "azurecr.us", via="fqdn"),
    *rows(GOV, "acr", "tls:443", "*.blob.core.usgovcloudapi.net", via="fqdn"),
    *rows(GOV, "acr", "tls:443", "myregistry.eastus.data.azurecr.us", via="fqdn"),
    *rows(GOV, "acr", "tls:443", "myregistry.westus.data.azurecr.us", via="fqdn"),
]

NOTES: Final = {
    "md-*.blob.storage.azure.net": (Kind.HARMLESS, "harmless"),
    "umsa*.blob.core.windows.net": (Kind.OPTIONAL, "optional: vm-agent-updates"),
}

SHARED: Final[dict[str, object]] = {
    "location": L,
    "region_cidrs": ["20.43.64.0/18"],
    "api_server_ips": ["20.1.2.3"],
    "dns_servers": ["10.0.0.10"],
    "registry": "myregistry",
}
REGIONS: Final = ["eastus", "westus"]
VARIANTS: Final[list[dict[str, object]]] = [
    {},
    {"regions": REGIONS, "data_endpoint": "dedicated", "regional_endpoints": True},
]


def catalog_says(cloud: str, requirement_id: str) -> set[tuple[Seen, str]]:
    """What the catalog gives under every via and every variant, each with ours, newer or ""."""
    requirement = load_catalog().requirement(requirement_id)
    found: set[tuple[Seen, str]] = set()
    for via in requirement.vias or [None]:
        for variant in VARIANTS:
            shared = SHARED | variant
            for one in expand(requirement_id, cloud=cloud, shared=shared, via=via):
                row = one.row
                mark = "ours" if row.ours else "newer" if row.since else ""
                names = [
                    *map(str, one.patterns),
                    *map(str, one.networks),
                    *(f"tag:{tag}" for tag in one.tags),
                ] or ["any address"]
                found |= {
                    (Seen(cloud, requirement_id, row.via, str(port), name), mark)
                    for port in one.ports
                    for name in names
                }
    return found


CASES: Final = [
    (cloud, requirement.id)
    for requirement in load_catalog().requirements
    for cloud in requirement.clouds
]


@pytest.mark.parametrize(("cloud", "requirement"), CASES)
def test_catalog_has_each_documented_row_and_no_other(cloud: str, requirement: str) -> None:
    marks = [(DOCUMENTED, ""), (NEWER, "newer"), (OURS, "ours")]
    expected = {
        (line, mark)
        for lines, mark in marks
        for line in lines
        if (line.cloud, line.requirement) == (cloud, requirement)
    }
    assert catalog_says(cloud, requirement) == expected


def test_no_requirement_of_the_documents_is_missing() -> None:
    expected = {(line.cloud, line.requirement) for line in DOCUMENTED + NEWER + OURS}
    assert set(CASES) == expected


def test_requirement_ids_are_the_ones_users_write() -> None:
    assert [requirement.id for requirement in load_catalog().requirements] == [
        "aks/core",
        "aks/tunnel",
        "aks/ntp",
        "aks/custom-dns",
        "aks/api-server",
        "aks/ubuntu-updates",
        "aks/gpu",
        "aks/windows",
        "aks/workload-identity",
        "aks/defender",
        "aks/key-vault",
        "aks/azure-monitor",
        "aks/azure-policy",
        "aks/cost-analysis",
        "aks/cluster-extensions",
        "aks/istio",
        "aks/app-routing",
        "acr",
        "mcr",
    ]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_two_names_that_are_only_noted_are_rows_that_allow_nothing(cloud: str) -> None:
    rows = [r for one in load_catalog().requirements for r in one.rows if r.cloud == cloud]
    noted = {row.names[0]: (row.kind, row.note) for row in rows if row.is_note}
    assert noted == NOTES
    allowed = {line.destination for line in DOCUMENTED + NEWER + OURS}
    assert not allowed & set(NOTES)


@pytest.mark.parametrize(
    ("requirement", "row", "words"),
    [
        ("aks/tunnel", "udp-1194-any", "konnectivity-agent"),
        ("aks/tunnel", "tcp-9000-service-tag", "konnectivity-agent"),
        ("aks/ntp", "ubuntu", "March 2021"),
        ("aks/ntp", "any", "March 2021"),
        ("aks/api-server", "tcp-443", "private clusters"),
        ("aks/core", "api-server", "private clusters"),
    ],
)
def test_exemptions_belong_to_the_public_cloud_alone(
    requirement: str, row: str, words: str
) -> None:
    rows = load_catalog().requirement(requirement).rows
    found = {r.cloud: r.not_needed for r in rows if r.id == f"{requirement}#{row}"}
    assert found.keys() == set(CLOUDS)
    assert words in found[GLOBAL][0].text
    assert not found[CHINA]
    assert not found[GOV]


@pytest.mark.parametrize(
    ("requirement", "entra"),
    [
        ("aks/core", "login.chinacloudapi.cn"),
        ("aks/workload-identity", "login.chinacloudapi.cn"),
        ("aks/defender", "login.microsoftonline.cn"),
        ("aks/cost-analysis", "login.microsoftonline.cn"),
    ],
)
def test_china_has_the_entra_name_of_each_table(requirement: str, entra: str) -> None:
    rows = expand(requirement, cloud=CHINA, shared=SHARED)
    logins = [str(p) for row in rows for p in row.patterns if str(p).startswith("login.")]
    assert logins == [entra]


def test_each_row_cites_its_document_and_says_what_it_is_for() -> None:
    titles = {
        "Outbound network and FQDN rules for Azure Kubernetes Service (AKS) clusters",
        "Configure rules to access an Azure container registry behind a firewall",
        "Microsoft Artifact Registry (MAR) Client Firewall Rules Configuration",
    }
    for requirement in load_catalog().requirements:
        for row in requirement.rows:
            assert row.document in titles
            assert row.section
            assert row.purpose.endswith(".")
            assert (
                row.kind
                is (
                    Kind.OPTIONAL
                    if requirement.id in {"aks/ubuntu-updates", "aks/istio", "aks/app-routing"}
                    or row.id == "acr#regional"
                    else Kind.REQUIRED
                )
                or row.is_note
            )


def test_sections_name_the_cloud_of_each_table() -> None:
    words = {GLOBAL: "Azure Global", CHINA: "21Vianet", GOV: "US Government"}
    for requirement in ("aks/core", "aks/tunnel", "aks/ntp", "aks/custom-dns", "aks/api-server"):
        for row in load_catalog().requirement(requirement).rows:
            assert words[row.cloud] in row.section or row.is_note


def test_acr_warns_of_the_switch_to_dedicated_data_endpoints() -> None:
    warning = load_catalog().requirement("acr").warning
    assert "pulls fail" in warning
    assert "*.blob.core.windows.net" in warning
