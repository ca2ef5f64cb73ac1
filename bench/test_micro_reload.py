"""Micro benchmarks of what a reload runs through: load, compile, nft text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from bench.decide_cost import flow
from bench.policies import HEAD, below, exact_name, write_policy_of
from egressproxy.kernel.firewall_options import FirewallOptions
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.nft_script import table_script
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy

if TYPE_CHECKING:
    from pathlib import Path

NOW: Final = 1_790_000_000.0
LARGE: Final = (100_000, 1_000_000)
PREFIXES: Final = 10_000


@pytest.mark.benchmark(group="policy")
def test_nft_text_of_10000_prefixes(benchmark: Any, tmp_path: Path) -> None:
    prefixes = [f"20.{n >> 8}.{n & 255}.0/25" for n in range(PREFIXES)]
    rule = f"rules:\n  - {{name: net, to: [{', '.join(prefixes)}], ports: ['tcp:22']}}\n"
    (tmp_path / "policy.yaml").write_text(HEAD + rule)
    policy, options = load_policy(tmp_path / "policy.yaml"), FirewallOptions(redirect_port=15001)
    text = benchmark(lambda: table_script(kernel_policy(policy, NOW), options))
    assert text.count("/25") == PREFIXES


@pytest.mark.benchmark(group="policy")
@pytest.mark.parametrize("size", LARGE, ids="{:,} names".format)
def test_load_half_of_them_wildcards(benchmark: Any, tmp_path: Path, size: int) -> None:
    path = write_policy_of(size, tmp_path)
    policy = benchmark.pedantic(load_policy, (path,), rounds=3)
    assert len(policy.rules[0].lists[0].entries) == size


@pytest.mark.benchmark(group="policy")
@pytest.mark.parametrize("size", LARGE, ids="{:,} names".format)
def test_load_exact_names(benchmark: Any, tmp_path: Path, size: int) -> None:
    path = write_policy_of(0, tmp_path)
    (tmp_path / "names.txt").write_text("".join(f"{exact_name(n)}\n" for n in range(size)))
    policy = benchmark.pedantic(load_policy, (path,), rounds=3)
    assert len(policy.rules[0].lists[0].entries) == size


@pytest.mark.benchmark(group="policy")
@pytest.mark.parametrize("size", LARGE, ids="{:,} names".format)
def test_compile(benchmark: Any, tmp_path: Path, size: int) -> None:
    policy = load_policy(write_policy_of(size, tmp_path))
    ruleset = benchmark.pedantic(compile_policy, (policy,), rounds=3)
    assert ruleset.decide(flow(below(7, "a")), NOW).is_allow
