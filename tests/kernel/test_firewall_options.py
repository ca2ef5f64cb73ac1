from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from egressproxy.kernel.firewall_options import PRIVATE, FirewallOptions, Intercept, Snat


@pytest.mark.parametrize(
    ("address", "is_private"),
    [
        ("10.240.0.4", True),
        ("172.31.255.255", True),
        ("172.32.0.0", False),
        ("192.168.1.1", True),
        ("100.64.0.1", True),
        ("100.128.0.0", False),
        ("169.254.169.254", False),
        ("20.1.2.3", False),
        ("fd00:240::4", True),
        ("2603:1040:50::1", False),
        ("fe80::1", False),
    ],
)
def test_private_is_what_azure_forwards_without_snat(address: str, is_private: bool) -> None:
    ours = ip_address(address)
    assert any(ours.version == net.version and ours in net for net in PRIVATE) == is_private


def test_without_options_private_clients_are_served_and_nobody_reaches_the_gateway() -> None:
    options = FirewallOptions()
    assert options.clients == PRIVATE
    assert options.snat is Snat.NON_PRIVATE
    assert (options.management, options.explicit_clients, options.explicit_ports) == ((), (), ())


@pytest.mark.parametrize(
    ("intercept", "port"), [(Intercept.REDIRECT, 15001), (Intercept.TPROXY, 15002)]
)
def test_the_proxy_port_is_that_of_the_way_it_is_reached(intercept: Intercept, port: int) -> None:
    options = FirewallOptions(redirect_port=15001, tproxy_port=15002, intercept=intercept)
    assert options.proxy_port == port


GIVEN = FirewallOptions(
    clients=(ip_network("10.240.0.0/16"), ip_network("10.241.0.0/16")), management=PRIVATE[:1]
)


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"clients": GIVEN.clients[::-1]}, True),
        ({"redirect_port": 15009, "tproxy_port": 15002, "explicit_ports": (3128,)}, True),
        ({"clients": GIVEN.clients[:1]}, False),
        ({"clients": GIVEN.management, "management": GIVEN.clients}, False),
        ({"explicit_clients": PRIVATE[:1]}, False),
        ({"probes": ()}, False),
        ({"ssh_ports": (22, 2222)}, False),
        ({"snat": Snat.NEVER}, False),
        ({"intercept": Intercept.TPROXY}, False),
        ({"nflog_group": 7}, False),
        ({"log_rate": 7}, False),
    ],
    ids=lambda case: "+".join(case) if isinstance(case, dict) else str(case),
)
def test_the_digest_is_of_what_the_operator_says(changes: dict[str, Any], is_same: bool) -> None:
    assert (replace(GIVEN, **changes).digest == GIVEN.digest) is is_same
    assert len(GIVEN.digest) == 16
