"""The scenes of the demo: each shows one promise with a real client, and checks it."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

from lab import flow_table, registry, reviewed, sites
from lab.events import EventReader
from lab.namespaces import LabError
from lab.network import CHECKOUT
from lab.skopeo import skopeo
from lab.tls_client import Offer

if TYPE_CHECKING:
    from lab.play import Play
    from lab.tls_client import TlsClient

SHIPPED: Final = CHECKOUT / "policies" / "lab.yaml"
"""The policy that the demo starts with."""
_GITHUB: Final = "rules:\n  - {name: edit, to: [github.com], ports: [https], from: [nodes]}\n"

_NEXT: Final = """
Ask the same policy yourself:
  .venv/bin/egressproxy check github.com --policy policies/lab.yaml
  .venv/bin/egressproxy catalog show aks/core --cloud AzureCloud --set location=japaneast
See for yourself (a shell in the spoke):
  .venv/bin/python -m lab.demo --shell
Write your own policy:
  .venv/bin/egressproxy init"""
_MONITOR: Final = "lab.ods.opinsights.azure.com"
_CALL: Final = ("curl", "-sS", "--max-time", "10")
_CLOCK: Final = "ntp.ubuntu.com"
_PROBE_PAUSE_S: Final = 0.002
_ENFORCED_WITHIN_S: Final = 5.0


def names(play: Play) -> None:
    """Allowed and refused by name, over TLS and HTTP."""
    play.stage.scene(
        "1. What AKS needs passes, everything else is refused with a reason",
        "The policy is policies/lab.yaml: aks/core, aks/api-server, acr and a few rules."
        "\nEvery command runs in the spoke, whose default route is the gateway; no client is told"
        " of a proxy.",
    )
    if not play.has("curl"):
        return
    mark = play.gateway.records.mark()
    play.run(*_CALL, "https://mcr.microsoft.com/")
    play.expect("allow", "rule", skip=mark, name="mcr.microsoft.com")
    play.run(*_CALL, "-6", "https://login.microsoftonline.com/")
    play.expect("allow", "rule", skip=mark, name="login.microsoftonline.com")
    play.run(*_CALL, "https://example.com/")
    play.expect("deny", "default_deny", skip=mark, name="example.com")
    done = play.run(*_CALL, "http://example.com/")
    play.expect("deny", "default_deny", skip=mark, name="example.com", protocol="http")
    play.stage.check("default_deny" in done.stdout, "the 403 itself names the reason")
    play.run(*_CALL, "https://gist.github.com/")
    play.expect("deny", "rule", skip=mark, name="gist.github.com")
    play.stage.say("\n  Denied names that the catalog knows carry a note:")
    for name in ("md-1.blob.storage.azure.net", "umsa1.blob.core.windows.net", _MONITOR):
        play.run(*_CALL, f"https://{name}/")
        play.expect("deny", "default_deny", skip=mark, name=name)


def api_server(play: Play) -> None:
    """The API server by address without SNI: pass 1; elsewhere a missing SNI is refused."""
    four = sites.API_SERVER.addresses[0]
    play.stage.scene(
        "2. Pods call the API server by its address, without a name",
        "aks/api-server is a network rule: the kernel forwards it and no name is asked for."
        "\nWithout a name to any other address there is nothing to judge by.",
    )
    if not play.has("openssl"):
        return
    mark = play.gateway.records.mark()
    connect = ("openssl", "s_client", "-brief", "-noservername", "-connect")
    done = play.run(*connect, f"{four}:443", stdin="Q\n")
    established = "CONNECTION ESTABLISHED" in done.text
    play.stage.check(established, f"allowed: {four}:443 without SNI, by aks/api-server", done.text)
    elsewhere = sites.ELSEWHERE.addresses[0]
    play.run(*connect, f"{elsewhere}:443", stdin="Q\n")
    play.expect("deny", "no_sni", skip=mark, dst_ip=elsewhere)


def konnectivity(play: Play) -> None:
    """ALPN and every other byte of the hello arrive as they were sent."""
    play.stage.scene(
        "3. konnectivity: the ClientHello arrives byte for byte",
        "Its agent offers ALPN konnectivity and h2; a gateway that edits ALPN or ends TLS breaks"
        " kubectl logs and exec.",
    )
    offer = Offer(sites.CLUSTER, ("konnectivity", "h2"))
    with play.tls(sites.ELSEWHERE.addresses[0], offer) as agent:
        chosen = agent.handshake()
        seen = json.loads(agent.read_line())
    arrived = bytes.fromhex(seen["hello"])
    sent = hashlib.sha256(agent.hello).hexdigest()
    play.stage.say(f"\n    sent     {len(agent.hello)} bytes, SHA-256 {sent}")
    play.stage.say(
        f"    arrived  {len(arrived)} bytes, SHA-256 {hashlib.sha256(arrived).hexdigest()}"
    )
    play.stage.check(arrived == agent.hello, "the server got exactly the bytes that were sent")
    play.stage.check(chosen == "konnectivity", f"the server chose ALPN {chosen}")
    play.stage.check(
        seen["local"] in sites.API_SERVER.addresses,
        "the connection was made to another address and went to the name's own: "
        f"{seen['local']} instead of {sites.ELSEWHERE.addresses[0]}",
    )


def image_pull(play: Play) -> None:
    """A pull from a registry that redirects its blobs to a second name."""
    play.stage.scene(
        "4. An image pull from a registry with a dedicated data endpoint",
        f"As ACR does, {sites.REGISTRY} redirects every blob to {sites.REGISTRY_DATA}; the"
        " requirement acr allows both.",
    )
    if not play.has("skopeo", "docker-registry"):
        return
    mark = play.gateway.records.mark()
    target = play.gateway.lab.directory / "pulled"
    source = f"docker://{sites.REGISTRY}/{registry.IMAGE}"
    copy = (*skopeo(play.gateway.lab.directory), "copy")
    done = play.run(*copy, source, f"dir:{target}", shown=("skopeo", "copy", source, "dir:pulled"))
    whole = any(path.stat().st_size > registry.LAYER_BYTES for path in target.glob("*"))
    play.stage.check(done.code == 0 and whole, "the image was pulled, its layer whole", done.text)
    for name in (sites.REGISTRY, sites.REGISTRY_DATA):
        play.expect("allow", "rule", skip=mark, name=name)
    other = "docker://otherregistry.azurecr.io/lab/hello:1"
    play.run(*copy, other, f"dir:{target}-other", shown=("skopeo", "copy", other, "dir:pulled"))
    play.expect("deny", "default_deny", skip=mark, name="otherregistry.azurecr.io")


def policy_edit(play: Play) -> None:
    """An edit is enforced at once while a tunnel stays up; a broken edit changes nothing."""
    play.stage.scene(
        "5. A policy edit takes effect while a tunnel stays up",
        "A konnectivity tunnel is held open. The policy file gets a rule for github.com, loses it"
        " again,\nand is then broken; nobody restarts anything. Times are from the write of the"
        " file.",
    )
    gateway = play.gateway
    offer = Offer(sites.CLUSTER, ("konnectivity", "h2"))
    with play.tls(sites.ELSEWHERE.addresses[0], offer) as tunnel:
        tunnel.handshake()
        tunnel.read_line()
        play.stage.check(not play.is_allowed("github.com"), "github.com is refused before the edit")
        started = gateway.write_policy(play.policy.replace("rules:\n", _GITHUB, 1))
        _report(play, "github.com is allowed", _enforced(play, allowed=True, started=started))
        with play.tls(sites.ELSEWHERE.addresses[0], Offer("github.com")) as github:
            github.handshake()
            started = gateway.write_policy(play.policy)
            revoked_ms = _closed_after(github, started)
        _report(
            play, "github.com is refused again", _enforced(play, allowed=False, started=started)
        )
        _report(play, "the open flow to github.com was closed (revoked)", revoked_ms)
        tunnel.send(b"still here?")
        play.stage.check(tunnel.read(64) == b"still here?", "the tunnel never noticed")
        gateway.write_policy(play.policy.replace("aks/core", "aks/cor"))
        play.stage.say("\n  A typo in the file (aks/cor for aks/core):")
        play.stage.check(_refusal_logged(play), "refused, and the old policy stays in force")
        play.stage.check(play.is_allowed("mcr.microsoft.com"), "mcr.microsoft.com still passes")
        gateway.apply_policy(play.policy)


def explicit(play: Play) -> None:
    """The same policy for clients that are told of the proxy."""
    play.stage.scene(
        "6. The explicit plane: clients that know their proxy",
        "CONNECT is judged by its name, and the SNI inside must be the same: the last command asks"
        " for\nmcr.microsoft.com and says github.com inside.",
    )
    if not play.has("curl"):
        return
    mark = play.gateway.records.mark()
    proxied = (*_CALL, "-x", play.gateway.explicit)
    play.run(*proxied, "https://mcr.microsoft.com/")
    play.expect("allow", "rule", skip=mark, name="mcr.microsoft.com", plane="explicit")
    play.run(*proxied, "http://example.com/")
    play.expect("deny", "default_deny", skip=mark, name="example.com", plane="explicit")
    play.run(
        *proxied, "--connect-to", "github.com:443:mcr.microsoft.com:443", "https://github.com/"
    )
    play.expect("deny", "host_mismatch", skip=mark, name="github.com")


def kernel(play: Play) -> None:
    """What is no application flow, and a firewall that somebody flushes."""
    elsewhere = sites.ELSEWHERE.addresses[0]
    play.stage.scene(
        "7. Everything else is the kernel's: network rules, or dropped and logged",
        "aks/ntp opens UDP 123 to a name, whose addresses are a set in nftables. No network rule"
        " allows\nport 8080; QUIC is refused, so that clients fall back to TCP. Then somebody in"
        " the hub flushes\nevery nftables rule: until they are back, nothing is forwarded.",
    )
    mark = play.gateway.records.mark()
    ask = ("python", "-m", "lab.ntp", _CLOCK)
    done = play.run(sys.executable, *ask[1:], shown=ask)
    play.stage.check(done.code == 0, f"allowed: {_CLOCK} at UDP 123 by aks/ntp", done.text)
    if play.has("curl"):
        play.run("curl", "-sS", "--max-time", "1", f"http://{elsewhere}:8080/")
        play.expect("deny", "default_deny", skip=mark, dst_ip=elsewhere, dst_port=8080)
    play.stage.check(_quic_is_refused(play, elsewhere), "UDP 443 is refused by ICMP, at once")
    play.expect("deny", "quic_refused", skip=mark, dst_ip=elsewhere, dst_port=443)
    _show_counters(play)
    flush = ("nft", "flush", "ruleset")
    play.stage.command(flush)
    started = time.monotonic()
    play.gateway.lab.net.hub.run(*flush)
    _report(play, "the table is put back", _put_back(play, started))
    play.stage.check(play.is_allowed("mcr.microsoft.com"), "mcr.microsoft.com passes")


def review(play: Play) -> None:
    """Everything that was refused: as the log has it, and what each of it is."""
    play.stage.scene(
        "8. The deny log, reviewed",
        "Every deny has a class, and why in words: what is noise, what is missing, what is a"
        " surprise.\nA gateway with --review-store needs no --log, and has the same in a browser.",
    )
    records = play.gateway.records
    play.stage.table("Deny log", flow_table.COLUMNS, flow_table.rows(records.read()))
    reviewed.show(play.stage, records.path, play.gateway.policy_file)


def perform(play: Play) -> None:
    """All scenes in order; one that breaks off is a failed expectation, and the next goes on."""
    for scene in ALL:
        try:
            scene(play)
        except (OSError, ValueError, LabError) as error:
            play.stage.check(False, f"scene {scene.__name__} runs to its end", repr(error))
    play.stage.say(_NEXT)


ALL: Final = (names, api_server, konnectivity, image_pull, policy_edit, explicit, kernel, review)


def _report(play: Play, claim: str, elapsed_ms: float | None) -> None:
    if elapsed_ms is None:
        play.stage.check(False, claim, f"not within {_ENFORCED_WITHIN_S:.0f} s")
    else:
        play.stage.check(True, f"{claim} {elapsed_ms:.0f} ms later")


def _enforced(play: Play, *, allowed: bool, started: float) -> float | None:
    """Milliseconds from ``started`` until github.com is judged anew; ``None`` where it is not."""
    while time.monotonic() - started < _ENFORCED_WITHIN_S:
        if play.is_allowed("github.com") is allowed:
            return 1000 * (time.monotonic() - started)
        time.sleep(_PROBE_PAUSE_S)
    return None


def _closed_after(held: TlsClient, started: float) -> float | None:
    held.connection.settimeout(_ENFORCED_WITHIN_S)
    try:
        while held.connection.recv(4096):
            pass
    except TimeoutError:
        return None
    except ConnectionError:
        pass
    return 1000 * (time.monotonic() - started)


def _show_counters(play: Play) -> None:
    """What the kernel counted so far, as ``nft status`` tells it in the hub."""
    play.stage.command(("egressproxy", "nft", "status", "--policy", "policies/lab.yaml"))
    facts = [line.split("\t") for line in play.gateway.status().splitlines()]
    counted = [fact for fact in facts if fact[0] in ("outcome", "rule") and fact[2] != "0"]
    counted.sort(reverse=True)  # rules first
    play.stage.said("\n".join("  ".join(fact) for fact in counted))
    names = {fact[1] for fact in counted}
    is_told = {"aks/ntp#ubuntu", "default_deny", "quic_refused"} <= names
    play.stage.check(is_told, "all is in place, and every packet is on its counter")


def _quic_is_refused(play: Play, address: str) -> bool:
    with play.gateway.lab.net.spoke.entered():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(_ENFORCED_WITHIN_S)
        client.connect((address, 443))
        client.send(b"any Initial")
        try:
            client.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            pass
    return False


def _put_back(play: Play, started: float) -> float | None:
    """Milliseconds from ``started`` until the service says so; ``None`` where it does not."""
    log = EventReader(play.gateway.service_log)
    try:
        log.wait(lambda event: event["event"].endswith("is put back"), timeout_s=_ENFORCED_WITHIN_S)
    except TimeoutError:
        return None
    return 1000 * (time.monotonic() - started)


def _refusal_logged(play: Play) -> bool:
    """Whether the gateway says what is wrong with the file; what it says is shown."""
    log = EventReader(play.gateway.service_log)
    try:
        said = log.wait(lambda event: "problems" in event, timeout_s=_ENFORCED_WITHIN_S)
    except TimeoutError:
        return False
    for problem in said["problems"]:
        play.stage.said(problem.removeprefix(f"{play.gateway.policy_file.parent}/"))
    return True
