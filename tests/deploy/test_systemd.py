"""The units: valid, hardened, in step with the service's own times, and granting what it needs.

No manager runs them here. What they grant is tried by hand: another user, the same capabilities,
no new privileges, no memory that is both writable and executable.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.planes.context import ListenerKind
from egressproxy.service.file_limit import BESIDE_FLOWS, PER_FLOW
from egressproxy.service.process import END_GRACE_S
from egressproxy.service.recording import END_GRACE_S as RECORDER_END_S
from egressproxy.service.recording import NOTES_S
from egressproxy.service.watchdog import REPLACEMENT_S
from egressproxy.settings import Settings
from lab.namespaces import namespaces
from tests.service.running import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
UNITS: Final = ROOT / "deploy" / "systemd"
SERVICE: Final = UNITS / "egressproxy.service"
SOCKETS: Final = sorted(UNITS.glob("*.socket"))
EXPOSURE_LIMIT: Final = 25
"""Tenths of ``systemd-analyze security``; the networking that a firewall is makes some of it."""
NOBODY: Final = "65534"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


def settings(unit: Path) -> dict[str, list[str]]:
    """Every assignment of a unit file."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as installed, but for the place of the program."""
    program = shutil.which("true") or "/bin/true"
    for unit in (SERVICE, *SOCKETS):
        text = unit.read_text().replace("/opt/egressproxy/bin/egressproxy", program)
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def systemd(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@needs_systemd
def test_units_are_valid(installed: Path) -> None:
    names = [f"./{unit.name}" for unit in (SERVICE, *SOCKETS)]
    done = systemd("verify", "--man=no", *names, folder=installed)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_a_mistake_would_be_seen(installed: Path) -> None:
    unit = installed / SERVICE.name
    unit.write_text(unit.read_text().replace("WatchdogSec=60", "WatchdogSec=soon"))
    assert "soon" in systemd("verify", "--man=no", f"./{unit.name}", folder=installed).stderr


@needs_systemd
def test_the_service_is_hardened(installed: Path) -> None:
    words = ("security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}", f"./{SERVICE.name}")
    done = systemd(*words, folder=installed)
    assert done.returncode == 0, done.stdout


def test_times_and_sizes_fit_those_of_the_service() -> None:
    unit, limits = settings(SERVICE), Settings()
    assert float(unit["WatchdogSec"][0]) > limits.worker_timeout_s + REPLACEMENT_S
    ending_s = limits.drain_timeout_s + END_GRACE_S + NOTES_S + RECORDER_END_S
    assert float(unit["TimeoutStopSec"][0]) > ending_s
    assert int(unit["LimitNOFILE"][0]) > PER_FLOW * limits.max_flows + BESIDE_FLOWS


def test_the_rules_stay_when_the_service_ends() -> None:
    unit = settings(SERVICE)
    assert "ExecStopPost" not in unit
    assert "ExecStop" not in unit
    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert unit["RuntimeDirectoryPreserve"] == ["yes"]


@pytest.mark.parametrize("unit", SOCKETS, ids=lambda unit: unit.name)
def test_sockets_have_names_that_the_service_knows(unit: Path) -> None:
    found = settings(unit)
    (kind,) = found["FileDescriptorName"]
    assert kind in set(ListenerKind)
    assert unit.name == f"egressproxy-{kind}.socket"
    assert found["Service"] == [SERVICE.name]
    assert found["Accept"] == ["no"]


def test_the_user_is_made() -> None:
    (user,) = settings(SERVICE)["User"]
    assert re.search(rf"^u {user} ", (UNITS / "egressproxy.sysusers").read_text(), re.MULTILINE)


_SANDBOXED: Final = """\
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: Linux 6.3
    print("no PR_SET_MDWE here", file=sys.stderr)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
_KERNEL: Final = """\
set -e
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose
nft -f - <<END
add table inet granted
add chain inet granted forward { type filter hook forward priority 0; policy drop; }
add rule inet granted forward log group 100
END
ip rule add fwmark 1 lookup 100
exec "$0" "$@"
"""


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that another user can use; pytest's own cannot be entered."""
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.netns
def test_what_the_unit_grants_is_enough(readable: Path) -> None:
    """Kernel rules, sysctls, a policy route, and every kind of listener, by nobody."""
    policy = readable / "policy.yaml"
    policy.write_text("version: 1\ncloud: AzureCloud\nrules: []\n")
    words = [name.removeprefix("CAP_").lower() for name in _capabilities()]
    words.append("dac_read_search")  # the interpreter may lie in root's home; it opens no writing
    grant = ",".join(f"+{word}" for word in words)
    listeners = ("--explicit", ":80", "--redirect", ":15001", "--tproxy", ":15002")
    with namespaces(("granted",), readable / "etc") as made:
        place = made["granted"]
        process = subprocess.Popen(
            place.argv(
                *("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"),
                *(f"--inh-caps={grant}", f"--ambient-caps={grant}", f"--bounding-set=-all,{grant}"),
                *("--no-new-privs", "sh", "-c", _KERNEL, sys.executable, "-c", _SANDBOXED),
                *("-m", "egressproxy", "run", "--policy", str(policy), "--workers", "1"),
                *(*listeners, "--admin", "none", "--log", str(readable / "flows")),
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = threading.Timer(DEADLINE_S, process.kill)
        deadline.start()
        try:
            assert process.stderr
            said = []
            for line in process.stderr:
                said.append(line)
                if '"event": "ready"' in line:
                    break
            else:
                pytest.fail("".join(said))
            assert "granted" in place.run("nft", "list", "tables")
        finally:
            deadline.cancel()
            process.terminate()
            process.communicate(timeout=DEADLINE_S)


def _capabilities() -> list[str]:
    unit = settings(SERVICE)
    assert unit["AmbientCapabilities"] == unit["CapabilityBoundingSet"]
    return unit["AmbientCapabilities"][0].split()
