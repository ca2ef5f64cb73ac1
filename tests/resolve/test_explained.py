"""The last word of an explanation: the policy's, or the guard's."""

from __future__ import annotations

from pathlib import Path

import pytest

from egressproxy.names import DnsName
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.policy.verdict import Action, Flow, Reason
from egressproxy.ports import Protocol
from egressproxy.resolve.explained import NEVER_DIALLED, explained

POLICY = """\
version: 1
cloud: AzureCloud
sources: {nodes: [10.1.0.0/16]}
rules:
  - {name: open, to: [0.0.0.0/0], ports: ["tcp:80"]}
  - {name: one, to: [one.test], ports: [https]}
"""
FLOWS = {
    "instance metadata": (
        Flow(Protocol.TCP, "10.1.0.4", 80, dst="169.254.169.254"),
        (Action.DENY, Reason.FORBIDDEN_ADDRESS, NEVER_DIALLED),
    ),
    "an address the policy opens": (
        Flow(Protocol.TCP, "10.1.0.4", 80, dst="20.1.2.3"),
        (Action.ALLOW, Reason.RULE, ""),
    ),
    "a name": (
        Flow(Protocol.TLS, "10.1.0.4", 443, DnsName("one.test")),
        (Action.ALLOW, Reason.RULE, ""),
    ),
}


@pytest.mark.parametrize(("flow", "expected"), FLOWS.values(), ids=FLOWS.keys())
def test_the_guard_has_the_last_word(
    tmp_path: Path, flow: Flow, expected: tuple[Action, Reason, str]
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    policy = load_policy(file)
    found = explained(policy, compile_policy(policy), flow, 0.0)
    assert (found.verdict.action, found.verdict.reason, found.note) == expected
    assert found.source_group == "nodes"
