from __future__ import annotations

from egressproxy.doctor.plan import Plan
from egressproxy.settings import Settings


def test_without_configuration_the_service_has_its_defaults() -> None:
    plan = Plan()
    assert plan.settings == Settings()
    assert plan.is_firewall
    assert not plan.listeners
