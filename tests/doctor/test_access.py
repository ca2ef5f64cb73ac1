from __future__ import annotations

from typing import Any

import pytest

from egressproxy.doctor.access import check_access
from egressproxy.doctor.plan import Plan
from egressproxy.kernel.firewall_options import FirewallOptions
from tests.doctor.machines import levels
from tests.policy.building import networks

HERE = "10.0.9.7 50000 10.0.0.4 22"
ADMINS = networks("10.0.9.0/24")


def found(ssh: str = "", **options: Any) -> dict[str, str]:
    firewall = FirewallOptions(**{"redirect_port": 15001, "management": ADMINS, **options})
    return levels(check_access(Plan(firewall=firewall), ssh))


@pytest.mark.parametrize(
    ("management", "ssh", "level"),
    [
        (ADMINS, HERE, "ok"),
        (ADMINS, "::ffff:10.0.9.7 50000 ::ffff:10.0.0.4 22", "ok"),
        (ADMINS, "", "ok"),
        (ADMINS, "nonsense", "ok"),
        (ADMINS, "10.0.8.7 50000 10.0.0.4 22", "fail"),
        (ADMINS, "2001:db8::7 50000 2001:db8::4 22", "fail"),
        ((), HERE, "fail"),
        ((), "", "warn"),
    ],
)
def test_management(management: Any, ssh: str, level: str) -> None:
    assert found(ssh, management=management)["management"] == level


def test_somebody_is_served() -> None:
    assert found() == {"management": "ok", "clients": "ok"}
    assert found(clients=())["clients"] == "fail"


def test_names_are_judged_by_a_listener() -> None:
    assert found(redirect_port=0)["intercepting listener"] == "warn"


def test_without_a_configuration_nothing_is_known() -> None:
    assert not list(check_access(Plan(), HERE))
