"""deploy/container: the compose file, and what its host has to have; no runtime is here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from click.testing import CliRunner

from egressproxy.cli.main import cli
from egressproxy.kernel.marks import JUDGED
from egressproxy.kernel.sysctls import sysctl_differences
from egressproxy.service.configuration import Problems, read_config
from tests.deploy.up_names import up_names
from tests.kernel.one_nic import one_nic

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "container"
SYSCTLS: Final = FOLDER / "host-sysctls.conf"


def service() -> dict[str, Any]:
    document = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert set(document) == {"services"}
    (found,) = document["services"].values()
    assert isinstance(found, dict)
    return found


def test_it_has_two_capabilities_and_no_privileged_mode() -> None:
    found = service()
    assert found["cap_drop"] == ["ALL"]
    assert sorted(found["cap_add"]) == ["NET_ADMIN", "NET_RAW"]
    assert "privileged" not in found
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["read_only"] is True
    assert found["network_mode"] == "host"


def test_its_interpreter_needs_no_other_capability() -> None:
    """One with file capabilities cannot even start where the container lacks one of them."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    capable = re.findall(r"setcap \S+ (\S+)", dockerfile)
    interpreter, *rest = service()["entrypoint"]
    assert interpreter not in capable
    assert rest == ["-m", "egressproxy"]
    assert interpreter in dockerfile  # the health check's


def test_its_command_is_one() -> None:
    name, *options = service()["command"]
    assert name == "up"
    assert {word.removeprefix("--") for word in options if word.startswith("--")} == {"config"}
    assert up_names()


def test_the_mounted_configuration_is_read_and_names_what_is_mounted() -> None:
    found = service()
    mounts = dict(reversed(each.split(":")[:2]) for each in found["volumes"])
    options = found["command"]
    config = Path(options[options.index("--config") + 1])
    here = FOLDER / mounts[str(config.parent)] / config.name
    problems = Problems()
    values = read_config(here, up_names(), problems)
    problems.raise_all()
    for key in ("policy", "log", "review_store"):
        assert str(Path(*values[key]).parent) in mounts
    done = CliRunner().invoke(cli, ["policy", "validate", str(here.parent / "policy.yaml")])
    assert done.exit_code == 0, done.output


def test_what_is_written_is_written_where_root_may() -> None:
    """A named volume would take the image's owner; this root cannot override that."""
    assert "DAC_OVERRIDE" not in service()["cap_add"]
    for each in service()["volumes"]:
        source, target, *mode = each.split(":")
        assert source[0] in "./", each
        assert mode == ["ro"] or source == target


def test_what_down_puts_back_outlives_the_container() -> None:
    assert "/run/egressproxy:/run/egressproxy" in service()["volumes"]


def test_it_stops_later_than_flows_are_drained() -> None:
    assert int(str(service()["stop_grace_period"]).removesuffix("s")) > 30


# The host


def sysctls() -> dict[str, str]:
    lines = [line for line in SYSCTLS.read_text().splitlines() if line and line[0] != "#"]
    return dict(tuple(line.split(" = ")) for line in lines)  # type: ignore[misc]  # pairs


def tree(folder: Path, values: dict[str, str]) -> Path:
    """A /proc/sys in which these are set, for ``all``, ``default`` and one interface."""
    for name, value in values.items():
        for interface in ("all", "default", "eth0") if "*" in name else ("",):
            path = folder / name.replace("*", interface).replace(".", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or "*" not in name:
                path.write_text(f"{value}\n")
    return folder


def test_sysctls_of_the_host_are_those_that_up_wants(tmp_path: Path) -> None:
    assert sysctl_differences(proc=tree(tmp_path, sysctls())) == ()


@pytest.mark.parametrize("name", sysctls())
def test_no_sysctl_is_there_for_nothing(name: str, tmp_path: Path) -> None:
    other = {"0": "1", "1": "0", "2": "1"}[sysctls()[name]]
    values = {key: other if key == name else value for key, value in sysctls().items()}
    assert sysctl_differences(proc=tree(tmp_path, values))


def test_docker_keeps_its_hands_off_the_host_s_rules() -> None:
    """Its FORWARD policy is DROP: it would drop what the gateway allows."""
    daemon = json.loads((FOLDER / "daemon.json").read_text())
    assert daemon["iptables"] is daemon["ip6tables"] is daemon["ip-forward"] is False


def test_what_is_not_judged_is_not_forwarded() -> None:
    text = (FOLDER / "closed.nft").read_text()
    (mark,) = re.findall(r"meta mark & (0x[0-9a-f]+) == 0 counter drop", text)
    assert int(mark, 16) == JUDGED
    assert "flush ruleset" not in text


JUDGING: Final = f"""
table inet judging {{
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    meta mark set meta mark | {JUDGED}
  }}
}}
"""


@pytest.mark.netns
def test_a_prepared_host_forwards_what_is_judged_and_nothing_else(tmp_path: Path) -> None:
    """With its sysctls and its closed table, in the kernel: before, with and after a gateway."""
    with one_nic(tmp_path) as net:
        net.hub.run("nft", "-f", str(FOLDER / "closed.nft"))  # loads conntrack's sysctls, too
        net.hub.run("nft", "-f", "-", stdin="table inet x { chain y { ct state new; }; }")
        net.hub.run("sysctl", "-q", "-p", str(SYSCTLS))
        with net.hub.entered():
            assert sysctl_differences() == ()
        assert not net.forwards(4)
        assert not net.forwards(6)
        net.hub.run("nft", "-f", "-", stdin=JUDGING)
        assert net.forwards(4)
        assert net.forwards(6)
        net.hub.run("nft", "-f", str(FOLDER / "closed.nft"))  # nftables.service, once more
        assert net.forwards(4)
        net.hub.run("nft", "delete", "table", "inet", "judging")
        assert not net.forwards(4)
