"""Flow records as rows of Azure Firewall's tables, so that queries (KQL) written for those work.

Columns and types are those of the resource-specific tables (learn.microsoft.com, Azure Monitor
reference, tables ``AZFWApplicationRule``, ``AZFWNetworkRule``, ``AZFWDnsQuery``), with the values
that Azure Firewall writes: ``Allow`` and ``Deny``, an ``ActionReason`` of ``Default Action`` where
no rule matched. What Azure alone can know (``TenantId``, ``_ResourceId``, …) is left to the
ingestion, and is in no row.

Two things have no place there. A record that stands for several flows has the column by which
Azure's own aggregation tables count (``ApplicationRuleCount``, ``NetworkRuleCount``). A flow that
was allowed and could not be served is an ``Allow``, as there, with our reason in ``ActionReason``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from egressproxy.export.moment import utc_text
from egressproxy.export.rule_path import rule_path
from egressproxy.observe.record import Plane
from egressproxy.policy.verdict import Action, Pass, Reason

if TYPE_CHECKING:
    from egressproxy.observe.record import FlowRecord

DEFAULT_ACTION: Final = "Default Action"
NO_SNI: Final = "SNI TLS extension was missing"
"""What Azure Firewall says of it."""

_REFUSED: Final = 5  # RCODE, RFC 1035 section 4.1.1
_MAX_INT: Final = 2**31 - 1  # of Kusto's int
_APPLICATION: Final = {"tls": "HTTPS", "http": "HTTP"}
_UNMATCHED: Final = frozenset(
    {Reason.DEFAULT_DENY, Reason.NEW_NAME, Reason.EXPIRED_RULE, Reason.QUIC_REFUSED}
)


class Table(StrEnum):
    """The tables that rows are for; ``Type`` in a row says which."""

    APPLICATION = "AZFWApplicationRule"
    NETWORK = "AZFWNetworkRule"
    DNS = "AZFWDnsQuery"


def azure_row(record: FlowRecord) -> dict[str, Any]:
    """One row; its ``Type`` is the table."""
    match table_of(record):
        case Table.APPLICATION:
            return _application(record)
        case Table.NETWORK:
            return _network(record)
        case Table.DNS:
            return _dns(record)


def table_of(record: FlowRecord) -> Table:
    """Which table a record belongs to: what was judged by name, by address, or in a DNS query."""
    if record.reason is Reason.DNS_REFUSED:
        return Table.DNS
    if record.protocol in _APPLICATION and record.decided_by is not Pass.NETWORK:
        return Table.APPLICATION
    return Table.NETWORK


def action_reason(record: FlowRecord) -> str:
    """Empty where a rule decided; ``Default Action`` where none matched; else what was wrong.

    What audit let pass says what enforcing would have done.
    """
    if record.reason in _UNMATCHED:
        text = DEFAULT_ACTION
    elif record.reason is Reason.NO_SNI:
        text = NO_SNI
    elif record.reason is Reason.RULE:
        text = ""
    else:
        text = str(record.reason)
    return f"would deny: {text or 'rule'}" if record.would_deny else text


def _application(record: FlowRecord) -> dict[str, Any]:
    return {
        **_common(record, Table.APPLICATION),
        "Protocol": _APPLICATION[record.protocol],
        "Fqdn": record.name or "",
        "TargetUrl": "",
        "WebCategory": "",
        "IsTlsInspected": False,
        "IsExplicitProxyRequest": record.plane is Plane.EXPLICIT,
        **_count("ApplicationRuleCount", record),
    }


def _network(record: FlowRecord) -> dict[str, Any]:
    protocol = "TCP" if record.protocol in _APPLICATION else record.protocol.upper()
    return {
        **_common(record, Table.NETWORK),
        "Protocol": protocol,
        "DestinationIp": record.dst_ip or record.dialled_ip or "",
        **_count("NetworkRuleCount", record),
    }


def _count(column: str, record: FlowRecord) -> dict[str, int]:
    return {column: min(record.count, _MAX_INT)} if record.count > 1 else {}


def _common(record: FlowRecord, table: Table) -> dict[str, Any]:
    path = rule_path(record.rule)
    return {
        "TimeGenerated": utc_text(record.time),
        "Type": str(table),
        "Action": "Deny" if record.action is Action.DENY else "Allow",
        "ActionReason": action_reason(record),
        "SourceIp": record.src_ip,
        "SourcePort": record.src_port,
        "DestinationPort": record.dst_port,
        "Policy": record.policy,
        "RuleCollectionGroup": path.group,
        "RuleCollection": path.collection,
        "Rule": path.rule,
    }


def _dns(record: FlowRecord) -> dict[str, Any]:
    """A refused question; what is in no flow record (identifier, type, sizes) is left out."""
    return {
        "TimeGenerated": utc_text(record.time),
        "Type": str(Table.DNS),
        "SourceIp": record.src_ip,
        "SourcePort": record.src_port,
        "Protocol": record.protocol,
        "QueryClass": "IN",
        "QueryName": f"{record.name}." if record.name else "",
        "ResponseCode": "REFUSED",
        "ErrorNumber": _REFUSED,
        "ErrorMessage": str(record.reason),
        "RequestDurationSecs": record.duration_s,
    }
