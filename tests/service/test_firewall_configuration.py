"""The kernel firewall's options from their sources: what they give, and every problem at once."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from egressproxy.kernel.firewall_options import FirewallOptions, Intercept, Snat
from egressproxy.kernel.host_state import DEFAULT_STATE
from egressproxy.service.configuration import Problems, Sources
from egressproxy.service.firewall_configuration import (
    DEFAULT_PROXY_PORT,
    FIREWALL_NAMES,
    FIREWALL_OPTIONS,
    ListenerPorts,
    endpoint_port,
    read_firewall,
    state_path,
)
from egressproxy.service.options import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

REDIRECT: Final = ListenerPorts(redirect=15001)


def read(
    given: Mapping[str, str] | None = None, ports: ListenerPorts = REDIRECT
) -> tuple[FirewallOptions, list[str]]:
    problems = Problems()
    flags = {name: tuple(text.split()) for name, text in (given or {}).items()}
    return read_firewall(Sources(flags, {}, {}), problems, ports), problems.found


def test_defaults_are_those_of_the_options() -> None:
    assert read() == (FirewallOptions(redirect_port=15001), [])


GOOD: Final[dict[str, tuple[str, Any]]] = {
    "clients": ("10.1.0.0/16 fd00::/8", (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))),
    "management": ("10.9.0.4", (ip_network("10.9.0.4/32"),)),
    "explicit_clients": ("10.2.0.0/16 10.2.0.0/16", (ip_network("10.2.0.0/16"),)),
    "probes": ("none", ()),
    "ssh_ports": ("22 2222", (22, 2222)),
    "snat": ("never", Snat.NEVER),
    "nflog_group": ("0", 0),
    "log_rate": ("5", 5),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_option_is_read(name: str) -> None:
    text, value = GOOD[name]
    options, problems = read({name: text})
    assert not problems
    assert getattr(options, name) == value


def test_every_option_has_its_case() -> None:
    assert {option.name for option in FIREWALL_OPTIONS} == FIREWALL_NAMES
    assert GOOD.keys() | {"intercept", "state"} == FIREWALL_NAMES


BAD: Final = {
    "clients": ("10.1.0.1/16", "--clients: '10.1.0.1/16' is not an address range"),
    "management": ("10.0.0.0/8 none", "--management: 'none' is not an address range"),
    "ssh_ports": ("0", "--ssh-ports: '0' is not a number"),
    "snat": ("sometimes", "--snat: 'sometimes' is none of non-private, always, never"),
    "intercept": ("dnat", "--intercept: 'dnat' is none of redirect, tproxy"),
    "nflog_group": ("70000", "--nflog-group: '70000' is not a number"),
    "log_rate": ("0", "--log-rate: '0' is not a number"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_option_is_told_and_its_default_taken(name: str) -> None:
    text, told = BAD[name]
    _, problems = read({name: text})
    assert len(problems) == 1
    assert problems[0].startswith(told)


def test_all_problems_are_told_at_once() -> None:
    _, problems = read({name: text for name, (text, _) in BAD.items()})
    assert len(problems) == len(BAD)


INTERCEPT: Final[dict[str, tuple[ListenerPorts, dict[str, str], Intercept, int, str]]] = {
    "as the only listener": (ListenerPorts(tproxy=15002), {}, Intercept.TPROXY, 15002, ""),
    "redirect of both": (ListenerPorts(redirect=1, tproxy=2), {}, Intercept.REDIRECT, 1, ""),
    "as is said": (
        ListenerPorts(redirect=1, tproxy=2),
        {"intercept": "tproxy"},
        Intercept.TPROXY,
        2,
        "",
    ),
    "no listener": (ListenerPorts(), {}, Intercept.REDIRECT, DEFAULT_PROXY_PORT, ""),
    "no listener, tproxy": (
        ListenerPorts(),
        {"intercept": "tproxy"},
        Intercept.TPROXY,
        DEFAULT_PROXY_PORT,
        "",
    ),
    "the wrong listener": (
        ListenerPorts(redirect=1),
        {"intercept": "tproxy"},
        Intercept.TPROXY,
        0,
        "--intercept: nothing listens for tproxy (hint: --tproxy 0.0.0.0:15001)",
    ),
}


@pytest.mark.parametrize("case", INTERCEPT)
def test_how_flows_come_to_the_proxy(case: str) -> None:
    ports, given, intercept, port, told = INTERCEPT[case]
    options, problems = read(given, ports)
    assert (options.intercept, options.proxy_port) == (intercept, port)
    assert problems == ([told] if told else [])


def test_a_listener_of_this_machine_alone_needs_no_opening() -> None:
    assert endpoint_port(Endpoint("10.0.0.4", 3128)) == 3128
    assert endpoint_port(Endpoint("127.0.0.1", 9090)) == 0
    assert endpoint_port(Path("/run/admin.sock")) == 0
    assert endpoint_port(None) == 0


def test_the_state_file() -> None:
    assert state_path(Sources({}, {}, {})) == DEFAULT_STATE
    assert state_path(Sources({}, {"EGRESSPROXY_STATE": "/x/y"}, {})) == Path("/x/y")
