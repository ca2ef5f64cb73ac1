"""What ``check`` is asked about: ``NAME[:PORT]``, protocol and source, read into a ``Flow``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from egressproxy.errors import EgressproxyError, PortError
from egressproxy.names import DnsName, is_ip_literal
from egressproxy.policy.address import pack_address
from egressproxy.policy.verdict import Flow, Reason
from egressproxy.ports import MAX_PORT, Protocol, parse_ports

policy_option: Final = click.option(
    "--policy",
    "policy_file",
    required=True,
    envvar="EGRESSPROXY_POLICY",
    type=click.Path(path_type=Path),
    help="The policy file.",
)
"""Whom ``check`` and ``probe`` ask."""
_DEFAULT_PORTS: Final = {Protocol.TLS: 443, Protocol.HTTP: 80}
_NAMELESS: Final = {Protocol.TLS: Reason.NO_SNI, Protocol.HTTP: Reason.IP_LITERAL}


class TargetError(EgressproxyError):
    """A question that cannot be read."""

    code = "invalid_target"


def read_flow(target: str, port: str | None, protocol: Protocol | None, source: str) -> Flow:
    """The flow of a client that opens ``target``.

    Args:
        target: a name or an address, an IPv6 one bare or in brackets.
        port: decimal, or ``None`` for the protocol's own.
        protocol: or ``None``: tcp for an address, http for port 80, tls otherwise.
        source: the client's address, or an empty text: a client in no group of ``sources``.

    Raises:
        EgressproxyError: with what to write instead.
    """
    if source and pack_address(source) is None:
        raise TargetError(f"{source!r} is no source address", hint="10.240.0.4 or 2001:db8::4")
    number = None if port is None else _port(port)
    address = _address(target)
    if protocol is None:
        by_name = Protocol.HTTP if number == 80 else Protocol.TLS
        protocol = Protocol.TCP if address else by_name
    number = number or _DEFAULT_PORTS.get(protocol)
    if number is None:
        raise PortError(f"{protocol} has no default port", hint=_with_port(target, address))
    if address:
        return Flow(protocol, source, number, dst=address, fault=_NAMELESS.get(protocol))
    return Flow(protocol, source, number, DnsName(target))


def split_item(text: str, protocol: Protocol | None) -> tuple[str, Protocol | None]:
    """A port as it stands in policies (``https``, ``udp:123``) or alone; the protocol with it.

    Raises:
        EgressproxyError: neither, or more than one port.
    """
    if text[:1].isdigit():
        return text, protocol
    span = parse_ports(text)
    if span.first != span.last:
        raise PortError(f"{text!r} is more than one port", hint=f"{span.protocol}:{span.first}")
    return str(span.first), span.protocol


def split_port(text: str) -> tuple[str, str | None]:
    """``NAME[:PORT]``, ``ADDRESS[:PORT]``, ``[IPV6]:PORT`` or a bare IPv6 address.

    Raises:
        TargetError: a URL, a bracket that is not closed, an IPv6 address and port without any.
    """
    if "/" in text:
        raise TargetError(f"{text!r} is not a name", hint="the host alone, without scheme and path")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if bracket and (not rest or rest.startswith(":")):
            return f"[{host}]", rest[1:] if rest else None
        raise TargetError(f"{text!r} is not an address in brackets", hint="write [2001:db8::1]:443")
    if text.count(":") != 1:
        if not is_ip_literal(text) and (written := _glued(text)):
            raise TargetError(f"{text!r} is not an address", hint=f"write {written}")
        return text, None
    host, _, port = text.partition(":")
    return host, port


def _address(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    return bare.partition("%")[0] if is_ip_literal(bare) else ""


def _with_port(target: str, address: str) -> str:
    """How to write a target with a port; one glued to an IPv6 address was read as its end."""
    if ":" not in address:
        return f"write {target}:PORT"
    glued = "" if target.startswith("[") else _glued(address)
    return f"write [{address}]:PORT" + (f", or {glued}" if glued else "")


def _glued(text: str) -> str:
    """``[IPV6]:PORT`` for an IPv6 address with a port after it, else an empty text."""
    host, _, port = text.rpartition(":")
    is_meant = ":" in host and is_ip_literal(host) and port.isascii() and port.isdigit()
    return f"[{host}]:{port}" if is_meant and not host.startswith("[") else ""


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= MAX_PORT:
        return int(text)
    raise PortError(f"{text!r} is not a port", hint=f"a number from 1 to {MAX_PORT}")
