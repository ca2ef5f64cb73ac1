"""``python -m lab.demo``: the whole gateway on this machine, with real clients.

As root, or where user namespaces are allowed, the network is three namespaces; else the explicit
plane on loopback shows what can be shown.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from lab import loopback_demo, scenes
from lab.firewall import Mode
from lab.gateway import gateway
from lab.namespaces import LabError
from lab.network import network
from lab.programs import how_to_install, missing
from lab.stage import Stage

_TERMINATED: Final = 128 + signal.SIGTERM
_NEEDED: Final = ("ip", "nft", "nsenter")
# ip-netns(8) keeps its names below /run, which only a mount of our own makes writable. Where
# /etc/resolv.conf points into the /run that this hides, it needs something to point to again.
_OWN_RUN: Final = """
mount -t tmpfs lab /run && target=$(readlink -m /etc/resolv.conf) &&
{ [ -e "$target" ] || { mkdir -p "${target%/*}" && : > "$target"; } } && exec "$@"
"""
_IN_USER_NAMESPACE: Final = (
    *("unshare", "--user", "--map-root-user", "--mount", "--net"),
    *("sh", "-c", _OWN_RUN, "sh"),
)
DEMO_IN_USER_NAMESPACE: Final = (*_IN_USER_NAMESPACE, sys.executable, "-m", "lab.demo")
"""The demo for who is not root: root in a user namespace of its own."""
_NEXT: Final = """
Ask the same policy yourself:
  .venv/bin/egressproxy check github.com --policy policies/lab.yaml
  .venv/bin/egressproxy catalog show aks/core --cloud AzureCloud --set location=japaneast
Write your own:
  .venv/bin/egressproxy init"""
_PICTURE: Final = """\
Three network namespaces on this machine, IPv4 and IPv6; nothing leaves them:

  spoke 10.240.0.4  ──▶  hub 10.240.0.1: egressproxy and nftables  ──▶  internet
  (an AKS node)          (the appliance, default route of the spoke)    (the lab's own servers)
"""


def main() -> int:
    """Run the demo; returns 0 where every expectation held."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    if os.geteuid() == 0:
        return _on_the_network()
    if user_namespaces_work():
        return subprocess.run(DEMO_IN_USER_NAMESPACE).returncode
    return loopback_demo.main(Stage())


def user_namespaces_work() -> bool:
    """Whether the kernel lets this user have network namespaces with nftables."""
    if missing(*_NEEDED, "unshare"):
        return False
    probe = (*_IN_USER_NAMESPACE, "nft", "list", "ruleset")
    return subprocess.run(probe, capture_output=True).returncode == 0


def _on_the_network() -> int:
    stage = Stage()
    lacking = missing(*_NEEDED)
    if lacking:
        stage.say(f"Missing: {', '.join(lacking)}. Install with: {how_to_install(lacking)}")
        return 2
    stage.say(_PICTURE)
    with tempfile.TemporaryDirectory(prefix="egressproxy-lab-") as directory:
        try:
            policy = scenes.SHIPPED.read_text()
            with (
                network(Path(directory)) as lab,
                gateway(lab, policy, mode=Mode.REDIRECT) as running,
            ):
                scenes.perform(scenes.Play(stage, running, policy))
        except LabError as error:
            stage.say(f"The lab could not be built: {error}")
            return 2
    stage.say(_NEXT)
    return stage.curtain()


if __name__ == "__main__":
    sys.exit(main())
