"""Wire faults are reasons of the policy vocabulary."""

from __future__ import annotations

from egressproxy.policy.verdict import Reason
from egressproxy.wire.fault import Fault


def test_every_fault_is_a_reason() -> None:
    assert {fault.value for fault in Fault} <= {reason.value for reason in Reason}
