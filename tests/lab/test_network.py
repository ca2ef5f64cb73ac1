"""The lab itself: built, found dead and removed, its servers' word true."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lab.authority import create_authority
from lab.hello_tap import hello_size, missing_bytes
from lab.namespaces import namespaces, remove_stale, run
from lab.tls_client import Offer, client_hello, cut_records

if TYPE_CHECKING:
    from pathlib import Path

DIE_WITHOUT_CLEANING = """
import os, sys
from pathlib import Path
from lab.namespaces import namespaces
with namespaces(["left"], Path(sys.argv[1])) as made:
    print(made["left"].name, flush=True)
    os._exit(1)
"""


@pytest.mark.netns
def test_namespaces_of_a_dead_run_are_removed(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", DIE_WITHOUT_CLEANING, str(tmp_path))
    left = subprocess.run(argv, capture_output=True, text=True).stdout.strip()
    assert left in run("ip", "netns", "list")
    assert left in remove_stale()
    assert left not in run("ip", "netns", "list")


@pytest.mark.netns
def test_namespaces_end_with_their_programs(tmp_path: Path) -> None:
    with namespaces(["end"], tmp_path) as made:
        name = made["end"].name
        argv = made["end"].argv("sh", "-c", "echo inside; exec sleep 1000")
        sleeper = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == b"inside\n"
    with sleeper:
        assert sleeper.wait(5) == -signal.SIGKILL
    assert name not in run("ip", "netns", "list")


@pytest.mark.netns
def test_hosts_ask_for_no_router(tmp_path: Path) -> None:
    """A solicitation is a packet that the gateway drops, and tests count what it drops."""
    with namespaces(["quiet"], tmp_path) as made:
        made["quiet"].run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        for link in ("eth0", "eth1"):
            asked = made["quiet"].run("sysctl", "-n", f"net.ipv6.conf.{link}.router_solicitations")
            assert asked.strip() == "0"


def test_hello_tap_finds_the_end_of_a_hello_in_any_records(tmp_path: Path) -> None:
    ca_file = create_authority(tmp_path).ca_file
    made = client_hello(Offer("www.contoso.example", ("h2",)), ca_file)
    made.connection.close()
    for size in (1, 3, 100, 1 << 14):
        records = cut_records(made.hello, size)
        assert hello_size(records + b"\x17\x03\x03\x00\x01x") == len(records)
        assert all(missing_bytes(records[:end]) > 0 for end in range(len(records)))
