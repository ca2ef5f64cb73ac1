from __future__ import annotations

import os
import subprocess
import sys

import pytest

from egressproxy.kernel.addresses import own_addresses


def test_loopback_is_ours() -> None:
    assert "127.0.0.1" in own_addresses()


@pytest.mark.netns
def test_every_interface_of_a_namespace() -> None:
    name = f"egx-eng-a{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in (
            "link add d0 type veth peer name d1",
            "addr add 10.96.0.1/24 dev d0",
            "addr add 10.96.0.2/24 dev d0",
            "addr add 10.96.1.1 peer 10.96.1.2 dev d0",
            "addr add fd96::1/64 dev d0 nodad",
            "link set d0 up",
            "link set lo up",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        code = "from egressproxy.kernel.addresses import own_addresses; print(*own_addresses())"
        ran = subprocess.run(
            ["ip", "netns", "exec", name, sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    found = {address for address in ran.stdout.split() if not address.startswith("fe80:")}
    assert found == {"127.0.0.1", "::1", "10.96.0.1", "10.96.0.2", "10.96.1.1", "fd96::1"}
