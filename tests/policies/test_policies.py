"""Each ready policy validates, and a golden file shows what it expands to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.policy.load import load_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from egressproxy.policy.rules import Policy, Rule

FOLDER: Final = Path(__file__).parents[2] / "policies"
NAMES: Final = ("aks-global", "aks-china", "aks-usgov", "acr", "lab")


def as_text(policy: Policy) -> str:
    head = f"{policy.cloud} {policy.mode}"
    return "\n".join([head, *map(rule_text, policy.rules), ""])


def rule_text(rule: Rule) -> str:
    to = [*map(str, rule.patterns), *map(str, rule.networks)] or ["any"] * rule.any_destination
    who = f" from {' '.join(rule.source_groups)}" if rule.sources is not None else ""
    ports = " ".join(map(str, rule.ports))
    return f"{rule.action} {rule.id}: {ports} to {' '.join(to)}{who}"


@pytest.mark.parametrize("name", NAMES)
def test_policy_expands_to_what_the_golden_file_shows(
    name: str, golden: Callable[[str, str], None]
) -> None:
    golden(f"{name}.txt", as_text(load_policy(FOLDER / f"{name}.yaml")))


def test_every_ready_policy_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_ready_policies_open_nothing_wide(name: str) -> None:
    for rule in load_policy(FOLDER / f"{name}.yaml").rules:
        assert not rule.any_destination
        assert all(network.num_addresses == 1 for network in rule.networks)
        assert "*.blob.core.windows.net" not in map(str, rule.patterns)
