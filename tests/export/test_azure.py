"""Azure Firewall's tables: their columns and types, and what their queries look for."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given

from egressproxy.export.azure import DEFAULT_ACTION, NO_SNI, Table, azure_row
from egressproxy.observe.record import FlowRecord, Plane
from egressproxy.policy.verdict import Action, Pass, Reason
from tests.export.records import record, records

# learn.microsoft.com, Azure Monitor reference, tables; but for what Azure itself fills in.
COLUMNS: dict[Table, dict[str, type]] = {
    Table.APPLICATION: {
        "Action": str,
        "ActionReason": str,
        "DestinationPort": int,
        "Fqdn": str,
        "IsExplicitProxyRequest": bool,
        "IsTlsInspected": bool,
        "Policy": str,
        "Protocol": str,
        "Rule": str,
        "RuleCollection": str,
        "RuleCollectionGroup": str,
        "SourceIp": str,
        "SourcePort": int,
        "TargetUrl": str,
        "TimeGenerated": datetime,
        "Type": str,
        "WebCategory": str,
    },
    Table.NETWORK: {
        "Action": str,
        "ActionReason": str,
        "DestinationIp": str,
        "DestinationPort": int,
        "Policy": str,
        "Protocol": str,
        "Rule": str,
        "RuleCollection": str,
        "RuleCollectionGroup": str,
        "SourceIp": str,
        "SourcePort": int,
        "TimeGenerated": datetime,
        "Type": str,
    },
    Table.DNS: {
        "DnssecOkBit": bool,
        "EDNS0BufferSize": int,
        "ErrorMessage": str,
        "ErrorNumber": int,
        "Protocol": str,
        "QueryClass": str,
        "QueryId": int,
        "QueryName": str,
        "QueryType": str,
        "RequestDurationSecs": float,
        "RequestSize": int,
        "ResponseCode": str,
        "ResponseFlags": str,
        "ResponseSize": int,
        "SourceIp": str,
        "SourcePort": int,
        "TimeGenerated": datetime,
        "Type": str,
    },
}
OF_AGGREGATION = {Table.APPLICATION: "ApplicationRuleCount", Table.NETWORK: "NetworkRuleCount"}

CASES: dict[str, tuple[FlowRecord, dict[str, Any]]] = {
    "nothing matched a name": (
        record(),
        {
            "TimeGenerated": "2026-09-21T14:13:20.250000Z",
            "Type": "AZFWApplicationRule",
            "Action": "Deny",
            "ActionReason": DEFAULT_ACTION,
            "SourceIp": "10.240.0.4",
            "SourcePort": 50123,
            "DestinationPort": 443,
            "Policy": "abc",
            "RuleCollectionGroup": "",
            "RuleCollection": "",
            "Rule": "",
            "Protocol": "HTTPS",
            "Fqdn": "evil.example",
            "TargetUrl": "",
            "WebCategory": "",
            "IsTlsInspected": False,
            "IsExplicitProxyRequest": False,
        },
    ),
    "allowed by a requirement, through the proxy port": (
        record(
            action=Action.ALLOW,
            reason=Reason.RULE,
            rule="aks/core#mcr",
            decided_by=Pass.APPLICATION,
            plane=Plane.EXPLICIT,
            protocol="http",
        ),
        {
            "Type": "AZFWApplicationRule",
            "Action": "Allow",
            "ActionReason": "",
            "Protocol": "HTTP",
            "RuleCollectionGroup": "requirements",
            "RuleCollection": "aks/core",
            "Rule": "mcr",
            "IsExplicitProxyRequest": True,
        },
    ),
    "denied by a rule": (
        record(reason=Reason.RULE, rule="rules/no-gists", decided_by=Pass.APPLICATION),
        {"Action": "Deny", "ActionReason": "", "Rule": "no-gists"},
    ),
    "no server name": (
        record(reason=Reason.NO_SNI, name=None),
        {"Action": "Deny", "ActionReason": NO_SNI, "Fqdn": ""},
    ),
    "a reason of ours": (
        record(reason=Reason.HOST_MISMATCH),
        {"Action": "Deny", "ActionReason": "host_mismatch"},
    ),
    "a rule that is over counts for none": (
        record(reason=Reason.EXPIRED_RULE, rule="rules/old"),
        {"Action": "Deny", "ActionReason": DEFAULT_ACTION},
    ),
    "a new name under warn-on-new": (
        record(action=Action.ALLOW, reason=Reason.NEW_NAME, would_deny=True),
        {"Action": "Allow", "ActionReason": f"would deny: {DEFAULT_ACTION}", "Rule": ""},
    ),
    "audit lets pass": (
        record(action=Action.ALLOW, would_deny=True),
        {"Action": "Allow", "ActionReason": f"would deny: {DEFAULT_ACTION}"},
    ),
    "audit lets pass what a rule denies": (
        record(action=Action.ALLOW, reason=Reason.RULE, rule="rules/x", would_deny=True),
        {"Action": "Allow", "ActionReason": "would deny: rule"},
    ),
    "allowed, and not served": (
        record(action=Action.ERROR, reason=Reason.DIAL_FAILED, rule="aks/core#mcr"),
        {"Action": "Allow", "ActionReason": "dial_failed"},
    ),
    "several flows in one record": (
        record(count=41),
        {"Type": "AZFWApplicationRule", "ApplicationRuleCount": 41},
    ),
    "more flows than the column holds": (
        record(count=1 << 32),
        {"ApplicationRuleCount": 2147483647},
    ),
    "a packet that nothing matched": (
        record(plane=Plane.NETWORK, protocol="udp", dst_port=53, name=None, count=3),
        {
            "Type": "AZFWNetworkRule",
            "Action": "Deny",
            "ActionReason": DEFAULT_ACTION,
            "Protocol": "UDP",
            "DestinationIp": "20.1.2.3",
            "DestinationPort": 53,
            "NetworkRuleCount": 3,
        },
    ),
    "QUIC": (
        record(plane=Plane.NETWORK, protocol="udp", reason=Reason.QUIC_REFUSED),
        {"Type": "AZFWNetworkRule", "Protocol": "UDP", "ActionReason": DEFAULT_ACTION},
    ),
    "an address allowed on a TLS port": (
        record(action=Action.ALLOW, reason=Reason.RULE, rule="rules/api", decided_by=Pass.NETWORK),
        {"Type": "AZFWNetworkRule", "Action": "Allow", "Protocol": "TCP", "Rule": "api"},
    ),
    "a refused question": (
        record(reason=Reason.DNS_REFUSED, protocol="udp", dst_port=53),
        {
            "Type": "AZFWDnsQuery",
            "QueryName": "evil.example.",
            "QueryClass": "IN",
            "Protocol": "udp",
            "ResponseCode": "REFUSED",
            "ErrorNumber": 5,
        },
    ),
}


@pytest.mark.parametrize(("given_record", "expected"), CASES.values(), ids=CASES)
def test_rows(given_record: FlowRecord, expected: dict[str, Any]) -> None:
    row = azure_row(given_record)
    assert {key: row.get(key) for key in expected} == expected


def test_a_whole_row_has_every_column_of_its_table() -> None:
    assert azure_row(record()).keys() == COLUMNS[Table.APPLICATION].keys()
    network = azure_row(record(protocol="tcp", plane=Plane.NETWORK))
    assert network.keys() == COLUMNS[Table.NETWORK].keys()


@given(records())
def test_any_record_is_a_row_of_its_table_in_type_and_column(given_record: FlowRecord) -> None:
    row = json.loads(json.dumps(azure_row(given_record)))
    table = Table(row["Type"])
    columns = COLUMNS[table]
    if table in OF_AGGREGATION:
        columns = {**columns, OF_AGGREGATION[table]: int}
    assert row.keys() <= columns.keys()
    for name, value in row.items():
        if columns[name] is datetime:
            assert datetime.fromisoformat(value).utcoffset() is not None
        elif columns[name] is float:
            assert isinstance(value, int | float)
        else:
            assert type(value) is columns[name], name
    if table is not Table.DNS:
        assert row["Action"] in ("Allow", "Deny")
        assert (row["Action"] == "Deny") is (given_record.action is Action.DENY)
