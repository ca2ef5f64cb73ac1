from pathlib import Path

import pytest

from bench.soak.policies import FLIPPING, is_bad, put_policy
from egressproxy.errors import PolicyError
from egressproxy.policy.load import load_policy


@pytest.mark.parametrize("turn", range(6))
def test_every_third_policy_is_bad_and_every_other_allows_the_name(
    tmp_path: Path, turn: int
) -> None:
    put_policy(tmp_path, turn)
    if is_bad(turn):
        with pytest.raises(PolicyError):
            load_policy(tmp_path / "policy.yaml")
        return
    patterns = {
        str(p) for rule in load_policy(tmp_path / "policy.yaml").rules for p in rule.patterns
    }
    assert (FLIPPING in patterns) is (turn % 2 == 0)


def test_no_two_policies_are_the_same(tmp_path: Path) -> None:
    put_policy(tmp_path, 0)
    first = load_policy(tmp_path / "policy.yaml").digest
    put_policy(tmp_path, 4)
    assert load_policy(tmp_path / "policy.yaml").digest != first
