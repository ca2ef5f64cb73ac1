"""``FirewallOptions``: what the gateway's operator says of the network, beside the policy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from egressproxy.policy.networks import Network

PRIVATE: Final[tuple[Network, ...]] = (
    ip_network("10.0.0.0/8"),
    ip_network("172.16.0.0/12"),
    ip_network("192.168.0.0/16"),
    ip_network("100.64.0.0/10"),
    ip_network("fc00::/7"),
)
"""RFC 1918, RFC 6598 and RFC 4193: what Azure Firewall, too, forwards without SNAT by default."""
AZURE_PROBES: Final[tuple[Network, ...]] = (ip_network("168.63.129.16/32"),)
"""Where an Azure load balancer's health probes come from."""


class Snat(StrEnum):
    """Which forwarded connections leave with the gateway's own address."""

    NON_PRIVATE = "non-private"
    """Those to public destinations; an Azure NVA must, or nothing comes back."""
    ALWAYS = "always"
    """Also those to private ones: where their answers would take another way back."""
    NEVER = "never"
    """None: something behind the gateway does it."""


class Intercept(StrEnum):
    """How a connection to an application port comes to the proxy."""

    REDIRECT = "redirect"
    """NAT; conntrack remembers where it was going."""
    TPROXY = "tproxy"
    """No NAT: the proxy's socket has the original destination as its own address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallOptions:
    """Who may use the gateway, who may reach it, and where its listeners are.

    ``clients`` are served at all: others are neither proxied nor forwarded, so that the internet
    cannot use the gateway. ``management`` reaches SSH, the admin pages and the explicit listener,
    ``explicit_clients`` the explicit listener alone, ``probes`` the admin pages alone. A port is 0
    where there is no such listener: without the intercepting one, nothing is taken to the proxy and
    application ports are judged like all others. ``log_rate`` is packets a second that each of the
    table's log rules may log; counters count every packet.
    """

    clients: tuple[Network, ...] = PRIVATE
    management: tuple[Network, ...] = ()
    explicit_clients: tuple[Network, ...] = ()
    probes: tuple[Network, ...] = AZURE_PROBES
    ssh_ports: tuple[int, ...] = (22,)
    explicit_ports: tuple[int, ...] = ()
    admin_port: int = 0
    intercept: Intercept = Intercept.REDIRECT
    redirect_port: int = 0
    tproxy_port: int = 0
    snat: Snat = Snat.NON_PRIVATE
    nflog_group: int = 100
    log_rate: int = 1000

    @property
    def proxy_port(self) -> int:
        """The port of the listener that takes application flows, 0 where there is none."""
        return self.redirect_port if self.intercept is Intercept.REDIRECT else self.tproxy_port

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over what the operator says of the network, in any order.

        Without the listeners' ports: a service manager may choose them.
        """
        networks = (self.clients, self.management, self.explicit_clients, self.probes)
        text = repr(
            (
                [sorted({str(each) for each in some}) for some in networks],
                sorted(set(self.ssh_ports)),
                [str(self.snat), str(self.intercept), self.nflog_group, self.log_rate],
            )
        )
        return sha256(text.encode()).hexdigest()[:16]
