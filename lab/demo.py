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
from typing import TYPE_CHECKING, Final

import click

from lab import loopback_demo, scenes
from lab.gateway import gateway
from lab.namespaces import LabError
from lab.network import network
from lab.play import Play
from lab.programs import how_to_install, missing
from lab.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

_TERMINATED: Final = 128 + signal.SIGTERM
_ADMIN_PATH: Final = "/usr/sbin:/sbin"
"""Where Debian keeps nft and ip for who is not root."""
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
_INITIAL_UID_MAP: Final = ("0", "0", str((1 << 32) - 1))
_USER_NAMESPACE: Final = "They are in a user namespace (you are not root).\n"
_PICTURE: Final = """\
Three network namespaces on this machine, IPv4 and IPv6; nothing leaves them:

  spoke 10.240.0.4  ──▶  hub 10.240.0.1: egressproxy and nftables  ──▶  internet
  (an AKS node)          (the appliance, default route of the spoke)    (the lab's own servers)
"""


@click.command()
@click.option("--shell", is_flag=True, help="Leave out the scenes; give me a shell in the spoke.")
def main(shell: bool) -> None:
    """The hub-and-spoke lab on this machine; ends with 0 where every expectation held."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    os.environ["PATH"] += os.pathsep + _ADMIN_PATH
    if os.geteuid() == 0:
        sys.exit(_on_the_network(_visit if shell else scenes.perform))
    if user_namespaces_work():
        argv = (*DEMO_IN_USER_NAMESPACE, "--shell") if shell else DEMO_IN_USER_NAMESPACE
        sys.exit(subprocess.run(argv).returncode)
    sys.exit(loopback_demo.main(Stage()))


def user_namespaces_work() -> bool:
    """Whether the kernel lets this user have network namespaces with nftables."""
    if missing(*_NEEDED, "unshare"):
        return False
    probe = (*_IN_USER_NAMESPACE, "nft", "list", "ruleset")
    return subprocess.run(probe, capture_output=True).returncode == 0


def in_user_namespace() -> bool:
    """Whether root here is root only in a user namespace (user_namespaces(7), uid_map)."""
    return tuple(Path("/proc/self/uid_map").read_text().split()) != _INITIAL_UID_MAP


def _on_the_network(act: Callable[[Play], None]) -> int:
    stage = Stage()
    lacking = missing(*_NEEDED)
    if lacking:
        stage.say(f"Missing: {', '.join(lacking)}. Install with: {how_to_install(lacking)}")
        return 2
    stage.say(_PICTURE)
    if in_user_namespace():
        stage.say(_USER_NAMESPACE)
    with tempfile.TemporaryDirectory(prefix="egressproxy-lab-") as directory:
        try:
            policy = scenes.SHIPPED.read_text()
            with (
                network(Path(directory)) as lab,
                gateway(lab, policy) as running,
            ):
                act(Play(stage, running, policy))
        except LabError as error:
            stage.say(f"The lab could not be built: {error}")
            return 2
    return stage.curtain()


def _visit(play: Play) -> None:
    """A shell in the spoke, for as long as its user likes; every file of the lab is at hand."""
    running = play.gateway
    play.stage.say(
        "You are in the spoke; every name resolves here. Try: curl https://mcr.microsoft.com/ and"
        f"\ncurl http://example.com/\n  flow log  {running.records.path}"
        f"\n  policy    {running.policy_file}  (edit it: it is watched)"
        f"\n  proxy     {running.explicit}\nexit ends the lab."
    )
    shell = os.environ.get("SHELL", "/bin/sh")
    environment = {**os.environ, **running.lab.trust}
    subprocess.run(running.lab.net.spoke.argv(shell), env=environment)


if __name__ == "__main__":
    main()
