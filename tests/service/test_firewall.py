"""The firewall of the running service in a real kernel: up, reloaded, changed, killed, down."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Final

import pytest

from egressproxy.kernel.firewall_options import Intercept
from lab.namespaces import run
from tests.service.running import poll, records_in
from tests.service.up import NTP, POLICY, WEB, hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.service.running import Service
    from tests.service.up import Hub

pytestmark = [pytest.mark.netns, pytest.mark.timeout(90)]

ALLOWED: Final = b"HTTP/1.1 200 OK"
REFUSED: Final = b"HTTP/1.1 403 Forbidden"
CLOSED: Final = POLICY.replace('"tcp:7000", ', "")


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Hub]:
    with hub(tmp_path) as built:
        yield built


def metric(service: Service, name: str) -> float:
    text = service.ask("/metrics")[1]
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


def records(at: Hub, **fields: Any) -> list[dict[str, Any]]:
    found = records_in(at.folder / "flows")
    return [each for each in found if all(each[k] == v for k, v in fields.items())]


def firewall(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.ask("/readyz")[1]["firewall"]
    return found


def serves(at: Hub) -> None:
    """By name through the proxy, by address and by name through the kernel; all else is closed."""
    assert at.get() == ALLOWED
    assert at.get(version=6) == ALLOWED
    assert at.get("evil.example") == REFUSED
    assert at.reaches(7000)
    assert at.reaches(7000, version=6)
    assert at.asks_time()
    assert not at.reaches(7001)


@pytest.mark.parametrize("way", list(Intercept))
def test_up_serves_stops_closed_and_goes_down_without_a_trace(way: Intercept, at: Hub) -> None:
    before = machine(at)
    with at.up("--intercept", way) as service:
        service.wait_for("ready")
        serves(at)
        assert firewall(service) == {
            "up": True,
            "policy": service.ask("/policy")[1]["digest"],
            "intercept": way.value,
            "problems": [],
        }
        assert metric(service, "egressproxy_firewall_up") == 1
        assert metric(service, "egressproxy_kernel_disagreements_total") == 0
        deny = poll("a record of the kernel's deny", lambda: records(at, dst_port=7001))[0]
        assert (deny["plane"], deny["action"], deny["rule"]) == ("network", "deny", None)
        assert deny["reason"] == "default_deny"
        assert deny["name"] == NTP  # what the address was last given for
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        assert service.said("the kernel's rules stay in place, application flows are refused")
    assert at.get() == b""
    assert not at.reaches(7001)
    assert at.reaches(7000)  # the kernel's own rules need nobody
    at.down()
    assert machine(at) == before


def machine(at: Hub) -> tuple[str, ...]:
    """What the gateway may have changed of its machine."""
    run = at.net.hub.run
    sysctls = [
        line
        for line in run("sysctl", "-a").splitlines()
        if line.startswith("net.") and not any(word in line for word in ("gc_", "count", "_use"))
    ]
    rules = (run("ip", "-4", "rule"), run("ip", "-6", "rule"))
    return (run("nft", "list", "ruleset"), *rules, *(s for s in sysctls if "netfilter" not in s))


CHANGES: Final = {
    "nft flush ruleset": "the table is gone",
    "nft delete table inet egressproxy": "the table is gone",
    "nft insert rule inet egressproxy judge accept": "the table was changed",
    "ip rule del pref 103": "the routing guard was changed",
    "sysctl -qw net.ipv4.conf.all.forwarding=0": "net.ipv4.ip_forward is 0, not 1",
}


def test_what_somebody_changes_is_put_back_at_once(at: Hub) -> None:
    with at.up() as service:
        service.wait_for("ready")
        for number, (command, what) in enumerate(CHANGES.items(), 1):
            at.net.hub.run(*command.split())
            service.wait_for("the kernel's firewall is put back", times=number)
            said = service.said("the kernel's firewall was changed by somebody")
            assert what in said[-1]["what"]
            poll("it is ready again", service.is_ready)
            assert metric(service, "egressproxy_kernel_repairs_total") == number
        serves(at)


def test_a_reload_reaches_the_kernel(at: Hub) -> None:
    with at.up() as service:
        service.wait_for("ready")
        with at.connect(7000) as flow, at.connect(7000, version=6) as other:
            flow.sendall(b"more")
            assert flow.recv(100) == b"more"
            at.write_policy(CLOSED)
            report = service.wait_for("policy reloaded")
            assert report["kernel_revoked"] == 2
            assert report["changes"] == ["~ rule rules/net: ports - tcp:7000"]
            for each in (flow, other):
                each.settimeout(0.3)
                each.sendall(b"still?")
                with pytest.raises(TimeoutError):
                    each.recv(100)
        assert not at.reaches(7000)
        assert at.asks_time()
        revoked = poll("records of them", lambda: records(at, reason="revoked"))
        assert {each["dst_port"] for each in revoked} == {7000}
        at.write_policy(POLICY)
        service.wait_for("policy reloaded", times=2)
        serves(at)
        page = service.ask("/policy")[1]["last_reload"]
        assert (page["outcome"], page["kernel_revoked"], page["kernel_kept"]) == ("applied", 0, 0)


def test_keep_leaves_forwarded_connections(at: Hub) -> None:
    keeping = "on_reload: keep\n"
    at.write_policy(POLICY + keeping)
    with at.up() as service:
        service.wait_for("ready")
        with at.connect(7000) as flow:
            at.write_policy(CLOSED + keeping)
            assert service.wait_for("policy reloaded")["kernel_kept"] == 1
            flow.sendall(b"more")
            assert flow.recv(100) == b"more"
        assert not at.reaches(7000)


def test_what_the_kernel_does_not_take_is_in_force_nowhere_until_it_does(at: Hub) -> None:
    """Here because nft is gone for a while; the old policy stays in kernel and workers alike."""
    opened = POLICY.replace(f"[{WEB}]", "[evil.example]").replace('"tcp:7000", ', '"tcp:7001", ')
    inside = ("nsenter", "--mount", "--target")
    with at.up("--resolve", "evil.example=20.97.0.1") as service:
        service.wait_for("ready")
        before = service.ask("/policy")[1]["digest"]
        pid = str(service.process.pid)
        run(*inside, pid, "mount", "--bind", "/dev/null", "/usr/sbin/nft")
        at.write_policy(opened)
        failed = service.wait_for("policy refused, the old one stays")
        assert (failed["digest"], failed["problems"]) == (before, [])
        assert "apt install nftables" in failed["error"]
        assert service.ask("/policy")[1]["digest"] == before
        assert at.get() == ALLOWED
        assert at.get("evil.example") == REFUSED
        assert at.reaches(7000)
        assert not at.reaches(7001)
        poll("it says that it is not well", lambda: not service.is_ready())
        assert "no such program" in firewall(service)["problems"][0]
        run(*inside, pid, "umount", "/usr/sbin/nft")
        service.wait_for("policy reloaded")  # tried again by itself
        assert at.get() == REFUSED
        assert at.get("evil.example") == ALLOWED
        assert at.reaches(7001)
        assert not at.reaches(7000)
        poll("it is well", service.is_ready)


def test_killed_it_leaves_nothing_open_and_a_restart_takes_over(at: Hub) -> None:
    with at.up() as first:
        first.wait_for("ready")
        workers = first.workers()
        flow = at.connect(7000)
        first.signal(signal.SIGKILL)
        first.wait()
        poll("its workers end with it", lambda: not any(map(_lives, workers)))
        assert at.get() == b""
        assert not at.reaches(7001)
        assert at.reaches(7000)
    with flow, at.up() as second:
        second.wait_for("ready")
        serves(at)
        flow.sendall(b"all along")
        assert flow.recv(100) == b"all along"
        second.signal(signal.SIGKILL)
        second.wait()
    at.write_policy(CLOSED)
    with at.up() as third:  # what the policy denies by now does not outlive the service before
        third.wait_for("ready")
        assert not at.reaches(7000)
        assert metric(third, "egressproxy_kernel_revoked_connections_total") >= 1
    at.down()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_there_is_one_at_a_time(at: Hub) -> None:
    with at.up() as first:
        first.wait_for("ready")
        with at.up() as second:
            assert second.wait() == 2
            assert "egressproxy is up" in "".join(second.raw)
        assert at.get() == ALLOWED


def test_without_nft_it_says_what_to_install_and_changes_nothing(at: Hub) -> None:
    before = machine(at)
    hiding = ("sh", "-c", 'mount --bind /dev/null /usr/sbin/nft && exec "$@"', "sh")
    with at.up(under=hiding) as service:
        assert service.wait() == 2
    said = "".join(service.raw)
    assert "nft: there is no such program (hint: apt install nftables" in said
    assert "Traceback" not in said
    assert machine(at) == before


def test_without_the_capability_it_says_so_and_changes_nothing(at: Hub) -> None:
    before = machine(at)
    with at.up(under=("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")) as service:
        assert service.wait() == 2
    assert "CAP_NET_ADMIN" in "".join(service.raw)
    assert machine(at) == before


def test_names_of_a_service_before_stay_open_when_dns_is_gone(at: Hub) -> None:
    with at.up() as first:
        first.wait_for("ready")
        assert at.asks_time()
        first.signal(signal.SIGKILL)
        first.wait()
    with at.up("--resolve", f"{NTP}=20.97.0.77") as second:
        second.wait_for("ready")
        assert at.get(WEB) == ALLOWED
        assert at.asks_time()
