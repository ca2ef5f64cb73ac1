from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.policy.lint_address import address_findings
from tests.policy.building import DENY, YESTERDAY, name_list, rule
from tests.policy.linting import texts, told

if TYPE_CHECKING:
    from egressproxy.policy.rules import Rule

BY_ADDRESS, TUNNEL = "by-address", "old-tunnel"

CASES = {
    "any": (rule("a", "any", ports="tcp:9001"), {BY_ADDRESS}),
    "any by network": (rule("a", "0.0.0.0/0", ports="tcp:9001"), {BY_ADDRESS}),
    "any in halves": (rule("a", "0.0.0.0/1", "128.0.0.0/1", ports="tcp:9001"), {BY_ADDRESS}),
    "wide range": (rule("a", "20.9.0.0/16", ports="tcp:1433"), {BY_ADDRESS}),
    "wide range v6": (rule("a", "2603:1000::/40", ports="tcp:443"), {BY_ADDRESS}),
    "one address": (rule("a", "20.9.0.1", ports="tcp:443"), set()),
    "small range": (rule("a", "20.9.0.0/24", ports="tcp:443"), set()),
    "private range": (rule("a", "10.0.0.0/8", ports="udp:53"), set()),
    "tag": (rule("a", "20.9.0.1", ports="tcp:443", tags=("Sql",)), {BY_ADDRESS}),
    "denied range": (rule("a", "any", ports="tcp:1-65535", action=DENY), set()),
    "expired": (rule("a", "any", ports="tcp:443", until=YESTERDAY), set()),
    "by name": (rule("a", "a.test", ports="https http"), set()),
    "a name's addresses on 443": (rule("a", "a.test", ports="https tcp:443"), {BY_ADDRESS}),
    "a list's addresses on 80": (
        rule("a", lists=(name_list("a.test"),), ports="tcp:80"),
        {BY_ADDRESS},
    ),
    "a name's addresses for QUIC": (rule("a", "a.test", ports="https udp:443"), {BY_ADDRESS}),
    "a name's addresses elsewhere": (rule("a", "a.test", ports="tcp:22 udp:123"), set()),
    "a denied name": (rule("a", "a.test", ports="https", action=DENY), set()),
    "tunnel to one address": (
        rule("a", "20.9.0.1", ports="udp:1194", requirement="aks/tunnel"),
        {BY_ADDRESS, TUNNEL},
    ),
    "tunnel by hand to the region": (
        rule("a", "20.9.0.1", ports="tcp:9000", tags=("azurecloud.JapanEast",)),
        {BY_ADDRESS, TUNNEL},
    ),
    "older tunnel by hand": (
        rule("a", "20.9.0.1", ports="tcp:22", tags=("AzureCloud",)),
        {BY_ADDRESS, TUNNEL},
    ),
    "tunnel by hand to any": (rule("a", "0.0.0.0/0", ports="udp:1194"), {BY_ADDRESS, TUNNEL}),
    "own OpenVPN": (rule("a", "20.9.0.1", ports="udp:1194"), set()),
    "own object store": (rule("a", "10.1.2.3", ports="tcp:9000"), set()),
    "ssh to any": (rule("a", "0.0.0.0/0", ports="tcp:22"), {BY_ADDRESS}),
    "a tag's other ports": (
        rule("a", "20.9.0.1", ports="tcp:1433", tags=("AzureCloud.japaneast",)),
        {BY_ADDRESS},
    ),
    "another tag": (
        rule("a", "20.9.0.1", ports="tcp:9000", tags=("AzureCloudX",)),
        {BY_ADDRESS},
    ),
    "api server": (
        rule("a", "20.1.2.3", ports="tcp:443", requirement="aks/api-server"),
        {"api-server-by-address"},
    ),
}


@pytest.mark.parametrize(("one", "codes"), CASES.values(), ids=CASES)
def test_findings(one: Rule, codes: set[str]) -> None:
    assert told(address_findings, one) == {(code, "a") for code in codes}


@pytest.mark.parametrize("cloud", ["AzureChinaCloud", "AzureUSGovernment"])
def test_other_clouds_still_need_the_tunnel(cloud: str) -> None:
    tunnel = rule("a", "20.9.0.1", ports="udp:1194", requirement="aks/tunnel")
    assert told(address_findings, tunnel, cloud=cloud) == {(BY_ADDRESS, "a")}


def test_rows_of_one_requirement_are_one_tunnel() -> None:
    rows = [
        rule("udp", "20.9.0.1", ports="udp:1194", requirement="aks/tunnel"),
        rule("tcp", "20.9.0.1", ports="tcp:9000", requirement="aks/tunnel"),
    ]
    assert told(address_findings, *rows) == {
        (BY_ADDRESS, "udp"),
        (BY_ADDRESS, "tcp"),
        (TUNNEL, "udp"),
    }


def test_the_annotation_is_named() -> None:
    (text,) = texts(
        address_findings, rule("a", "20.1.2.3", ports="tcp:443", requirement="aks/api-server")
    )
    assert 'kubernetes.azure.com/set-kube-service-host-fqdn: "true"' in text


HINTS = {
    "dns": (rule("a", "any", ports="udp:53"), "any address on udp:53", "aks/custom-dns"),
    "time": (rule("a", "any", ports="udp:123"), "any address on udp:123", "ntp.ubuntu.com"),
    "else": (rule("a", "20.9.0.0/16", "20.8.0.0/16", ports="tcp:1-9"), "20.9.0.0/16 and", "https"),
    "several ports": (rule("a", "any", ports="udp:53 tcp:53"), "on udp:53 and tcp:53", "aks/cus"),
    "a requirement that has names": (
        rule(
            "a",
            "20.9.0.1",
            ports="tcp:443",
            tags=("AzureMonitor",),
            requirement="aks/azure-monitor",
        ),
        "service tag AzureMonitor on tcp:443",
        "with via: fqdn its names alone are open",
    ),
    "a requirement that has addresses": (
        rule("a", "20.9.0.0/16", ports="tcp:22", tags=("X",), requirement="aks/tunnel"),
        "service tag X on tcp:22",
        "with via: api-server its own addresses",
    ),
    "https": (rule("a", "a.test", ports="tcp:443"), "tcp:443 opens", "write https"),
    "quic": (rule("a", "a.test", ports="udp:443"), "udp:443 opens", "leave QUIC refused"),
    "http": (rule("a", "a.test", ports="tcp:80"), "tcp:80 opens", "write http:"),
}


@pytest.mark.parametrize(("one", "what", "hint"), HINTS.values(), ids=HINTS)
def test_what_to_write_instead(one: Rule, what: str, hint: str) -> None:
    (text,) = texts(address_findings, one, cloud="AzureChinaCloud")
    said, _, instead = text.partition(" -> ")
    assert what in said
    assert hint in instead


def test_the_narrowest_way_is_to_accept_it() -> None:
    tunnel = rule("a", "20.9.0.1", ports="udp:1194", requirement="aks/tunnel")
    (text,) = texts(address_findings, tunnel, cloud="AzureChinaCloud")
    assert text.endswith(" -> accept it here where the cluster needs it")
