"""What is judged and what the judgement is: ``Flow``, ``Verdict``, ``Action``, ``Reason``."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from egressproxy.names import DnsName
    from egressproxy.policy.rules import Rule
    from egressproxy.ports import Protocol


class Action(StrEnum):
    """What became of a flow; ``error`` is a flow that was allowed and could not be served."""

    ALLOW = "allow"
    DENY = "deny"
    ERROR = "error"


class Pass(StrEnum):
    """Which pass decided (rule processing as Azure Firewall: network before application)."""

    NETWORK = "network"
    APPLICATION = "application"
    NONE = "none"


class Reason(StrEnum):
    """Why. A stable public vocabulary: log field, metric label, ``check`` output."""

    RULE = "rule"
    """A rule or requirement decided, allow or deny."""
    DEFAULT_DENY = "default_deny"
    """Nothing matched."""
    NEW_NAME = "new_name"
    """Nothing matched a name that is new: allowed by ``mode: warn-on-new``, with ``would_deny``."""
    EXPIRED_RULE = "expired_rule"
    """Nothing matched but a rule whose ``until`` has passed."""
    NO_SNI = "no_sni"
    """A ClientHello without a server name."""
    IP_LITERAL = "ip_literal"
    """The name the client gave is an address."""
    MALFORMED_HELLO = "malformed_hello"
    """Bytes that begin as TLS and are no ClientHello."""
    HELLO_TOO_LARGE = "hello_too_large"
    """A ClientHello above ``max_hello_bytes``."""
    HELLO_TIMEOUT = "hello_timeout"
    """No whole ClientHello or request head within ``hello_timeout_s``."""
    CLOSED_BEFORE_HELLO = "closed_before_hello"
    """The client left before it said anything to judge (``nc -z``, health probes)."""
    NOT_TLS_OR_HTTP = "not_tls_or_http"
    """Neither TLS nor HTTP on a port that is judged by name."""
    HOST_MISMATCH = "host_mismatch"
    """The SNI is not the CONNECT name, or Host not the absolute-form target."""
    AMBIGUOUS_REQUEST = "ambiguous_request"
    """A request that two readers could read differently (Host, framing, line ends)."""
    HEAD_TOO_LARGE = "head_too_large"
    """A request head above ``max_request_head_bytes``."""
    H2C_REFUSED = "h2c_refused"
    """HTTP/2 in clear text, or CONNECT where no proxy was asked for."""
    ECH_REFUSED = "ech_refused"
    """Encrypted ClientHello (or GREASE, which looks the same) where policy says refuse."""
    DESTINATION_MISMATCH = "destination_mismatch"
    """``destination: strict`` and the client's address is none of the name's."""
    FORBIDDEN_ADDRESS = "forbidden_address"
    """The address, or each one that the name resolves to, must not be dialled."""
    LIMIT_SOURCE = "limit_source"
    """``max_flows_per_source`` reached."""
    LIMIT_GLOBAL = "limit_global"
    """``max_flows`` reached."""
    LOOP = "loop"
    """The flow is addressed to this gateway itself."""
    REVOKED = "revoked"
    """A reload denied a flow that was open."""
    QUIC_REFUSED = "quic_refused"
    """UDP 443 (QUIC, HTTP/3) that no network rule allows: refused so that the client falls back to
    TCP."""
    DNS_REFUSED = "dns_refused"
    """A DNS question that policy denies."""
    RESOLVE_FAILED = "resolve_failed"
    """Action ``error``: no address for an allowed name."""
    DIAL_FAILED = "dial_failed"
    """Action ``error``: no address of an allowed name accepted the connection."""
    DIAL_TIMEOUT = "dial_timeout"
    """Action ``error``: no address of an allowed name answered in time."""
    INTERNAL_ERROR = "internal_error"
    """Action ``error``: a defect of this gateway; the flow was closed, the log has a traceback."""


AUDITABLE = frozenset(
    {
        Reason.RULE,
        Reason.DEFAULT_DENY,
        Reason.EXPIRED_RULE,
        Reason.NO_SNI,
        Reason.IP_LITERAL,
        Reason.NOT_TLS_OR_HTTP,
    }
)
"""The denies that audit mode softens into an allow with ``would_deny``."""


class Flow(NamedTuple):
    """What is known of a flow when it is judged.

    ``src`` and ``dst`` are canonical address texts as ``inet_ntop`` writes them, IPv4-mapped
    addresses unwrapped. ``connect`` is the CONNECT target of a tunnel, which an SNI must equal.
    ``fault`` is what the wire layer found wrong; then ``name`` is normally missing.
    """

    protocol: Protocol
    src: str
    port: int
    name: DnsName | None = None
    dst: str | None = None
    connect: DnsName | None = None
    ech: bool = False
    fault: Reason | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one flow. ``would_deny`` is an allow that enforcing would have denied.

    ``rule`` carries what dialling needs (``destination``, ``addresses``); ``None`` where no rule
    decided.
    """

    action: Action
    reason: Reason
    rule_id: str | None = None
    decided_by: Pass = Pass.NONE
    would_deny: bool = False
    rule: Rule | None = field(default=None, repr=False, compare=False)
    is_allow: bool = field(init=False, repr=False, compare=False)
    """Whether the flow may go on."""

    def __post_init__(self) -> None:
        """Ask once, because every flow asks."""
        object.__setattr__(self, "is_allow", self.action is Action.ALLOW)
