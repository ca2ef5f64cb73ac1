"""Who gets in: will `up` shut out the person who runs it, and is anybody served."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from egressproxy.doctor.finding import fail, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from egressproxy.doctor.finding import Finding
    from egressproxy.doctor.plan import Plan
    from egressproxy.policy.networks import Network


def check_access(plan: Plan, ssh_connection: str) -> Iterator[Finding]:
    """``ssh_connection`` is sshd(8)'s SSH_CONNECTION: the client's address stands first."""
    options = plan.firewall
    if options is None:
        return
    client = _client(ssh_connection)
    shown = ", ".join(map(str, options.management)) or "nobody"
    if client and not _within(client, options.management):
        yield fail(
            "management",
            f"{shown}; your SSH session comes from {client}",
            "once it is up, SSH from there is dropped: open sessions stay, the next one does not",
            f"management: [{client}]   # in the configuration",
        )
    elif not options.management:
        yield warn(
            "management",
            "nobody",
            "SSH is shut for everyone; what is left is the serial console of Azure",
            "management: [10.0.9.0/24]   # in the configuration",
        )
    else:
        yield ok("management", shown)
    if options.clients:
        yield ok("clients", ", ".join(map(str, options.clients)))
    else:
        yield fail("clients", "nobody", "nobody is served", "clients: [10.240.0.0/16]")
    if not options.proxy_port:
        yield warn(
            "intercepting listener",
            "none",
            "names are not judged: application ports are dropped like all others",
            'redirect: [":15001"]   # in the configuration',
        )


def _client(ssh_connection: str) -> str:
    first = ssh_connection.partition(" ")[0]
    try:
        return str(ip_address(first.removeprefix("::ffff:").partition("%")[0]))
    except ValueError:
        return ""


def _within(address: str, networks: Sequence[Network]) -> bool:
    return any(ip_address(address) in network for network in networks)
