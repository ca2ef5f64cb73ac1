"""What ``egressproxy run`` was asked for, read and checked: no socket or file is touched here."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from egressproxy.errors import ServiceError
from egressproxy.names import DnsName
from egressproxy.planes.context import AllowRecords, ListenerKind
from egressproxy.ports import MAX_PORT
from egressproxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from egressproxy.export.outlet import Target

_ENDPOINT: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[0-9.]*))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
MAX_WORKERS: Final = 256
MAX_DIGITS: Final = 15
DNS_PORT: Final = 53
MAX_GATEWAY: Final = 64
MAX_NEWLY_DENIED: Final = 10**12
DEFAULT_MARK: Final = 0x65
"""In the low byte: kube-proxy, Calico and Cilium use bits of the others."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address to listen on; ``address`` is canonical text, port 0 lets the kernel choose."""

    address: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is an IPv6 address."""
        return ":" in self.address

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.address).is_loopback

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.is_ipv6 else self.address
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listener:
    """An endpoint and what is expected of its clients."""

    kind: ListenerKind
    endpoint: Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Where flow records go (``path`` is ``None`` for stdout), and which allows are among them."""

    path: Path | None = None
    allows: AllowRecords = AllowRecords.ALL
    sample_every: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """All that a worker needs to know; it travels to it in one message."""

    index: int
    workers: int
    settings: Settings
    kinds: tuple[ListenerKind, ...]
    log: LogOptions = field(default_factory=LogOptions)
    servers: tuple[Endpoint, ...] = ()
    overrides: Mapping[DnsName, tuple[str, ...]] = field(default_factory=dict)
    mark: int = DEFAULT_MARK
    is_recorded: bool = False


def host_name() -> str:
    """This machine's name as it calls itself, fit for a gateway's name."""
    kept = (each for each in socket.gethostname() if each.isascii() and each.isprintable())
    return "".join(kept)[:MAX_GATEWAY] or "gateway"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The whole order of ``egressproxy run``."""

    policy: Path
    listeners: tuple[Listener, ...]
    workers: int
    settings: Settings = field(default_factory=Settings)
    log: LogOptions = field(default_factory=LogOptions)
    servers: tuple[Endpoint, ...] = ()
    overrides: Mapping[DnsName, tuple[str, ...]] = field(default_factory=dict)
    mark: int = DEFAULT_MARK
    allow_outside: bool = False
    gateway: str = field(default_factory=host_name)
    """What tells this gateway from others in a shared review store."""
    review_store: str | None = None
    """A path or a ``postgresql://`` URL; ``None`` keeps no review."""
    review_max_newly_denied: int | None = None
    """A reload that would deny more flows of the last day than this is refused."""
    exports: tuple[Target, ...] = ()
    """Where flow records go besides."""


def parse_endpoint(text: str, *, default_port: int | None = None) -> Endpoint:
    """Read ``ADDR:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (every IPv6 and IPv4 address).

    Raises:
        ServiceError: with a hint that says what to write.
    """
    found = _ENDPOINT.fullmatch(text)
    if default_port is not None and text and _is_address(text):
        host, port = text, default_port
    elif found and (found["port"] or default_port is not None):
        host = found["ipv6"] or found["host"] or ("::" if default_port is None else "")
        port = int(found["port"] or default_port or 0)
    else:
        host, port = "", 0
    if not _is_address(host) or port > MAX_PORT:
        if default_port is not None:
            raise ServiceError(
                f"{text!r} is not ADDR[:PORT]", hint="write 10.0.0.10 or [2001:db8::53]:5353"
            )
        raise ServiceError(
            f"{text!r} is not ADDR:PORT",
            hint="write 127.0.0.1:3128, [::1]:3128, or :3128 for every address",
        )
    return Endpoint(str(ipaddress.ip_address(host)), port)


def parse_workers(text: str, cpus: int) -> int:
    """Read ``auto`` (one a CPU this process may use) or a number.

    Raises:
        ServiceError: neither.
    """
    if text == "auto":
        return max(1, min(cpus, MAX_WORKERS))
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_WORKERS:
        return int(text)
    raise ServiceError(
        f"{text!r} is not a number of workers", hint=f"write auto or 1 to {MAX_WORKERS}"
    )


def parse_number(text: str, *, low: int, high: int) -> int:
    """Read a whole number (decimal or ``0x…``).

    Raises:
        ServiceError: it is none, or out of range.
    """
    if len(text) <= MAX_DIGITS and re.fullmatch(r"[0-9]+|0x[0-9a-fA-F]+", text, re.ASCII):
        number = int(text, 16 if text.startswith("0x") else 10)
        if low <= number <= high:
            return number
    raise ServiceError(f"{text!r} is not a number", hint=f"a whole number, {low} to {high}")


def parse_switch(text: str) -> bool:
    """Read ``true`` or ``false``.

    Raises:
        ServiceError: neither.
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    raise ServiceError(f"{text!r} is neither true nor false")


def parse_allows(text: str) -> tuple[AllowRecords, int]:
    """Read which allowed flows to record: ``none``, ``all``, or one in N as ``1/N``.

    Raises:
        ServiceError: none of them.
    """
    if text in ("none", "all"):
        return AllowRecords(text), 1
    found = re.fullmatch(r"1/([1-9][0-9]{0,8})", text, re.ASCII)
    if not found:
        raise ServiceError(
            f"{text!r} is not a choice of records", hint="write none, all, or 1/100 for a sample"
        )
    return AllowRecords.SAMPLE, int(found[1])


def parse_gateway(text: str) -> str:
    """Read the name of this gateway.

    Raises:
        ServiceError: not printable ASCII, or too long.
    """
    if not (text.isascii() and text.isprintable()) or not 1 <= len(text.strip()) <= MAX_GATEWAY:
        raise ServiceError(
            f"{text!r} is no name for a gateway",
            hint=f"printable ASCII, at most {MAX_GATEWAY} characters: gw-japaneast-1",
        )
    return text.strip()


def parse_store(text: str) -> str | None:
    """Read where the review store is: a path, a ``postgresql://`` URL, or ``none``.

    Raises:
        ServiceError: a URL of another kind; it is not repeated, because it may hold a password.
    """
    if text in ("", "none"):
        return None
    if "://" in text and not text.startswith("postgresql://"):
        raise ServiceError(
            "the review store is a URL of an unknown kind",
            hint="a path, or postgresql://USER@HOST/DATABASE",
        )
    return text


def parse_newly_denied(text: str) -> int | None:
    """Read how many flows of the last day a reload may newly deny; ``none`` asks nothing.

    Raises:
        ServiceError: neither.
    """
    return None if text == "none" else parse_number(text, low=0, high=MAX_NEWLY_DENIED)


def parse_override(item: str) -> tuple[DnsName, str]:
    """Read ``NAME=IP``.

    Raises:
        ServiceError: not of this form.
        InvalidNameError: the name is no host name.
    """
    name, _, address = item.partition("=")
    if not name or not _is_address(address):
        raise ServiceError(f"{item!r} is not NAME=IP", hint="mcr.microsoft.com=10.0.0.5")
    return DnsName(name), str(ipaddress.ip_address(address))


def parse_overrides(pairs: Iterable[tuple[DnsName, str]]) -> dict[DnsName, tuple[str, ...]]:
    """The addresses of each name, in the order given."""
    found: dict[DnsName, tuple[str, ...]] = {}
    for name, address in pairs:
        found[name] = (*found.get(name, ()), address)
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
