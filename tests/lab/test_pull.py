"""A container image through the gateway: two endpoints, as ACR with dedicated data endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lab import policies, registry, sites
from lab.network import REGISTRY_PROGRAMS
from lab.programs import Finished, client, missing
from lab.skopeo import skopeo

if TYPE_CHECKING:
    from pathlib import Path

    from lab.gateway import Gateway

pytestmark = pytest.mark.netns


@pytest.fixture(autouse=True)
def _tools() -> None:
    if lacking := missing(*REGISTRY_PROGRAMS):
        pytest.skip(f"{', '.join(lacking)} not installed")


def _pull(gateway: Gateway, target: Path) -> Finished:
    lab = gateway.lab
    source = f"docker://{sites.REGISTRY}/{registry.IMAGE}"
    argv = (*skopeo(lab.directory), "copy", source, f"dir:{target}")
    return client(lab.net.spoke, *argv, environment=lab.trust, timeout_s=40)


def test_pull_uses_both_endpoints(either: Gateway, tmp_path: Path) -> None:
    mark = either.records.mark()
    done = _pull(either, tmp_path / "image")
    assert done.code == 0, done.text
    assert any(path.stat().st_size > registry.LAYER_BYTES for path in tmp_path.glob("image/*"))
    for name in (sites.REGISTRY, sites.REGISTRY_DATA):
        record = either.record(skip=mark, name=name, action="allow")
        assert record["rule"].startswith("acr#")


def test_pull_without_the_data_endpoint_fails_there(gw: Gateway, tmp_path: Path) -> None:
    rules = f"  - {{name: front, to: [{sites.REGISTRY}], ports: [https]}}\n"
    gw.apply_policy(policies.policy(policies.DNS, rules=rules))
    mark = gw.records.mark()
    assert _pull(gw, tmp_path / "image").code != 0
    record = gw.record(skip=mark, name=sites.REGISTRY_DATA)
    assert (record["action"], record["reason"]) == ("deny", "default_deny")
    assert record["note"] == "needed-by: acr"
