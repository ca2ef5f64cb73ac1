"""The kernel firewall's options, from where all options come: flags, environment, config file.

What ``up`` and ``nft`` share, so that a table is the same whoever applies it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from egressproxy.errors import ServiceError
from egressproxy.kernel.firewall_options import (
    AZURE_PROBES,
    PRIVATE,
    FirewallOptions,
    Intercept,
    Snat,
)
from egressproxy.kernel.host_state import DEFAULT_STATE
from egressproxy.policy.networks import parse_network
from egressproxy.service.options import Endpoint, parse_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from enum import StrEnum

    from egressproxy.policy.networks import Network
    from egressproxy.service.configuration import Problems, Sources

_T = TypeVar("_T")
_E = TypeVar("_E", bound="StrEnum")

NOBODY: Final = "none"
DEFAULT_PROXY_PORT: Final = 15001
"""Where application flows are taken when no listener for them is named."""
MAX_PORT: Final = 65535
MAX_GROUP: Final = 65535
MAX_LOG_RATE: Final = 1_000_000
_DEFAULT: Final = FirewallOptions()


@dataclass(frozen=True, slots=True)
class FirewallOption:
    """One option: its name as a key, its value's form, and what it means."""

    name: str
    metavar: str
    about: str
    multiple: bool = False


def _default(values: Iterable[object]) -> str:
    return f"[default: {' '.join(map(str, values))}]"


FIREWALL_OPTIONS: Final = (
    FirewallOption(
        "clients", "CIDR|none", f"Who is served at all.  {_default(PRIVATE)}", multiple=True
    ),
    FirewallOption(
        "management",
        "CIDR|none",
        "Who reaches SSH, the admin pages and the explicit listener; `up` wants it, or none.",
        multiple=True,
    ),
    FirewallOption(
        "explicit_clients",
        "CIDR|none",
        "Who reaches the explicit listener besides.  [default: none]",
        multiple=True,
    ),
    FirewallOption(
        "probes",
        "CIDR|none",
        f"Where health probes of the admin pages come from.  {_default(AZURE_PROBES)}",
        multiple=True,
    ),
    FirewallOption(
        "ssh_ports", "PORT", f"Where sshd listens.  {_default(_DEFAULT.ssh_ports)}", multiple=True
    ),
    FirewallOption(
        "snat",
        "|".join(Snat),
        f"Which forwarded connections leave with our address.  [default: {_DEFAULT.snat}]",
    ),
    FirewallOption(
        "intercept",
        "|".join(Intercept),
        "How application ports come to the proxy.  [default: as its listener]",
    ),
    FirewallOption(
        "nflog_group",
        "N",
        f"NFLOG group of the packets that are logged.  [default: {_DEFAULT.nflog_group}]",
    ),
    FirewallOption(
        "log_rate",
        "N",
        f"Packets a second that each log rule logs at most.  [default: {_DEFAULT.log_rate}]",
    ),
    FirewallOption(
        "state", "PATH", f"Where the machine's own settings are kept.  [default: {DEFAULT_STATE}]"
    ),
)
FIREWALL_NAMES: Final = frozenset(option.name for option in FIREWALL_OPTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerPorts:
    """Where the proxy listens, as far as the kernel has to know; 0 where it does not."""

    redirect: int = 0
    tproxy: int = 0
    explicit: tuple[int, ...] = ()
    admin: int = 0


@dataclass(frozen=True, slots=True)
class FirewallOrder:
    """What ``up`` is to put up; ``state`` is where the machine's own settings are kept."""

    options: FirewallOptions
    state: Path = DEFAULT_STATE


def read_firewall(sources: Sources, problems: Problems, ports: ListenerPorts) -> FirewallOptions:
    """The firewall's options; of a bad one, which is noted, its default.

    Without a listener that takes application flows there is one at ``DEFAULT_PROXY_PORT``.
    """
    read = _Reader(sources, problems)
    of_listener = Intercept.TPROXY if ports.tproxy and not ports.redirect else Intercept.REDIRECT
    intercept = read.one("intercept", of_listener, partial(_choice, Intercept))
    if not (ports.redirect or ports.tproxy):
        is_redirect = intercept is Intercept.REDIRECT
        redirect, tproxy = (DEFAULT_PROXY_PORT, 0) if is_redirect else (0, DEFAULT_PROXY_PORT)
        ports = replace(ports, redirect=redirect, tproxy=tproxy)
    options = FirewallOptions(
        clients=read.networks("clients", _DEFAULT.clients),
        management=read.networks("management", ()),
        explicit_clients=read.networks("explicit_clients", ()),
        probes=read.networks("probes", _DEFAULT.probes),
        ssh_ports=read.many("ssh_ports", _DEFAULT.ssh_ports, _port),
        explicit_ports=ports.explicit,
        admin_port=ports.admin,
        intercept=intercept,
        redirect_port=ports.redirect,
        tproxy_port=ports.tproxy,
        snat=read.one("snat", _DEFAULT.snat, partial(_choice, Snat)),
        nflog_group=read.one(
            "nflog_group", _DEFAULT.nflog_group, partial(parse_number, low=0, high=MAX_GROUP)
        ),
        log_rate=read.one(
            "log_rate", _DEFAULT.log_rate, partial(parse_number, low=1, high=MAX_LOG_RATE)
        ),
    )
    if not options.proxy_port:
        problems.found.append(
            f"{sources.place('intercept')}: nothing listens for {intercept}"
            f" (hint: --{intercept} 0.0.0.0:15001)"
        )
    return options


def state_path(sources: Sources) -> Path:
    """Where the machine's own settings are kept."""
    return Path(sources.one("state", str(DEFAULT_STATE)))


@dataclass(frozen=True, slots=True)
class _Reader:
    sources: Sources
    problems: Problems

    def one(self, name: str, default: _T, parse: Callable[[str], _T]) -> _T:
        text = self.sources.one(name)
        if not text:
            return default
        return self.problems.gather(lambda: parse(text), default, place=self.sources.place(name))

    def many(
        self, name: str, default: tuple[_T, ...], parse: Callable[[str], _T]
    ) -> tuple[_T, ...]:
        texts = self.sources.many(name)
        if not texts:
            return default
        place = self.sources.place(name)
        found: list[_T | None] = [
            self.problems.gather(partial(parse, text), None, place=place) for text in texts
        ]
        return tuple(dict.fromkeys(value for value in found if value is not None))

    def networks(self, name: str, default: tuple[Network, ...]) -> tuple[Network, ...]:
        if self.sources.many(name) == (NOBODY,):
            return ()
        return self.many(name, default, parse_network)


def endpoint_port(place: Any) -> int:
    """The port of a listener that others than this machine can reach; else 0."""
    return place.port if isinstance(place, Endpoint) and not place.is_loopback else 0


def _port(text: str) -> int:
    return parse_number(text, low=1, high=MAX_PORT)


def _choice(kind: type[_E], text: str) -> _E:
    try:
        return kind(text)
    except ValueError as error:
        raise ServiceError(f"{text!r} is none of {', '.join(kind)}") from error
