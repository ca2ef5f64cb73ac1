"""Signs that somebody avoids the gateway, or carries data past it: what ``suspicious`` means.

Clear signs are acts that need a will, whatever was wanted. Faint ones have innocent causes too, and
count only where neither the catalog nor the policy explains the deny.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from egressproxy.policy.verdict import Reason
from egressproxy.ports import Protocol
from egressproxy.review.outside import is_outside

if TYPE_CHECKING:
    from collections.abc import Container

    from egressproxy.review.behaviour import Behaviour
    from egressproxy.review.model import Subject

USUAL_TLS_PORTS: Final = frozenset(
    {443, 465, 563, 636, 853, 989, 990, 992, 993, 995, 5061, 5671, 6380, 6443, 8443, 8883, 9093}
)
"""Where TLS is at home: IANA's ports for it, and those of Azure's services and Kubernetes."""

_NO_NAME: Final = {
    Reason.NO_SNI: "TLS without a server name",
    Reason.IP_LITERAL: "an address in place of a name",
}


def clear_sign(subject: Subject, behaviour: Behaviour) -> str:
    """What of a subject needs a will, in words; an empty text where nothing does."""
    if subject.is_overflow:
        return (
            f"{subject.src_ip} wanted so many different things in one hour that the rest of them"
            " is counted as one"
        )
    if subject.hello_split:
        return (
            "its small ClientHello came in pieces, which no ordinary client does and which some"
            " filters cannot read"
        )
    if subject.reason is Reason.HOST_MISMATCH:
        return "it gives one name outside and another inside, as domain fronting does"
    if subject.name is not None:
        return ""
    refused = behaviour.second_tries.get((subject.src_ip, subject.dst_ip or ""))
    if refused is not None:
        return f"{subject.src_ip} was refused {refused} and tried by address, without a name"
    if subject.reason is Reason.FORBIDDEN_ADDRESS and _is_own(subject.dst_ip):
        return (
            f"it asks for {subject.dst_ip}, an address of the machine itself or of its cloud's"
            " metadata service"
        )
    return ""


def tunnel_sign(subject: Subject, behaviour: Behaviour) -> str:
    """The shape of a tunnel in the names that a source wanted, this one among them."""
    tunnel = behaviour.tunnel_of(subject.src_ip, subject.name) if subject.name else None
    if tunnel is None:
        return ""
    suffix, count = tunnel
    return (
        f"{subject.src_ip} wanted {count} long names below {suffix}, all different: data can leave"
        " in names, by DNS, whatever becomes of the flows"
    )


def faint_sign(subject: Subject, behaviour: Behaviour, application_ports: Container[object]) -> str:
    """What may be innocent; ``application_ports`` has (protocol, port) of the policy's rules."""
    source = subject.src_ip
    if subject.name is None:
        no_name = _NO_NAME.get(subject.reason)
        if no_name and is_outside(subject.dst_ip):
            return (
                f"{no_name}, to the public address {subject.dst_ip}: a pod that asks an API server"
                " by address, or a client that avoids being named"
            )
        addresses = behaviour.addresses.get(source)
        if addresses:
            return f"{source} tried {addresses} different addresses without a name: a scan"
    if _is_odd_tls(subject, application_ports):
        return f"TLS on port {subject.dst_port}, which no rule has and where it is not at home"
    names = behaviour.names.get(source)
    if names and subject.name is not None:
        return (
            f"{source} wanted {names} different names that neither policy nor catalog knows and"
            " hardly anybody else wants"
        )
    return ""


def _is_odd_tls(subject: Subject, application_ports: Container[object]) -> bool:
    port = subject.dst_port
    return (
        subject.protocol == Protocol.TLS
        and port > 0  # a client of the explicit proxy that never said where to
        and port not in USUAL_TLS_PORTS
        and (Protocol.TLS, port) not in application_ports
    )


def _is_own(address: str | None) -> bool:
    """Whether an address is loopback, link-local (metadata) or Azure's wire server."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return False
    return found.is_loopback or found.is_link_local or str(found) == "168.63.129.16"
