"""``make demo`` as a newcomer runs it: every expectation holds, whatever the machine allows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lab import demo
from lab.network import CHECKOUT

pytestmark = pytest.mark.timeout(120)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, cwd=CHECKOUT, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Deny log" in done.stdout
    assert "egressproxy denies" in done.stdout
    assert "the policy nor the catalog knows it" in done.stdout
    assert "expectations held" in done.stdout
    return done.stdout


@pytest.mark.netns
def test_demo_as_root() -> None:
    shown = _run(sys.executable, "-m", "lab.demo")
    assert "left out" not in shown
    assert ("in a user namespace" in shown) is demo.in_user_namespace()
    for word in ("harmless", "revoked", "no_sni", "host_mismatch", "default_deny"):
        assert word in shown


def test_demo_in_a_user_namespace() -> None:
    if not demo.user_namespaces_work():
        pytest.skip("not in this checkout: the kernel's leave to make user namespaces")
    shown = _run(*demo.DEMO_IN_USER_NAMESPACE)
    assert "Three network namespaces" in shown
    assert "in a user namespace (you are not root)" in shown


def test_demo_on_loopback() -> None:
    shown = _run(sys.executable, "-m", "lab.loopback_demo")
    assert "forbidden_address" in shown
    assert "allowed by the policy; the address guard stops it" in shown
