"""deploy/cloud-init: the schema of cloud-init itself, and what the files would write and run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from egressproxy.cli.main import cli
from egressproxy.service.configuration import Problems, read_config
from tests.deploy.up_names import up_names

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
FILES: Final = sorted((DEPLOY / "cloud-init").glob("*.yaml"))
SCHEMA: Final = ROOT / ".lab" / "cloud-init-schema.json"
"""Unpacked from Debian's cloud-init by tools/setup-debian."""
GIVEN: Final = {
    "@BUNDLE_URL@": "https://bundles.example/egressproxy.tar.gz",
    "@BUNDLE_SHA256@": "0" * 64,
    "@MANAGEMENT@": '10.0.0.64/26", "203.0.113.0/28',
    "@SPOKES@": '10.240.0.0/16", "10.241.0.0/16',
    "@LOCATION@": "japaneast",
}


def document(path: Path) -> dict[str, Any]:
    """The file as it is once its placeholders are replaced, as bicep/main.bicep does."""
    text = path.read_text()
    for placeholder, value in GIVEN.items():
        assert placeholder in text
        text = text.replace(placeholder, value)
    assert not re.findall(r"@[A-Z0-9_]+@", text)
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def files(path: Path) -> dict[str, str]:
    return {each["path"]: each["content"] for each in document(path)["write_files"]}


def test_both_systems_are_here() -> None:
    assert [path.stem for path in FILES] == ["azure-linux", "ubuntu"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.skipif(not SCHEMA.exists(), reason="no cloud-init schema: tools/setup-debian test")
def test_cloud_init_s_own_schema_takes_them(path: Path) -> None:
    validator = jsonschema.Draft4Validator(json.loads(SCHEMA.read_text()))
    validator.validate(document(path))
    assert list(validator.iter_errors({"write_files": [{"permissions": 420}], "runcmd": 1}))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_they_are_cloud_configs_that_fit(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("#cloud-config\n")
    assert len(text) < 65535 * 3 // 4  # Azure's limit of custom data, in base64
    for each in document(path)["write_files"]:
        assert re.fullmatch(r"0[0-7]{3}", each["permissions"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_configuration_and_policy_are_what_egressproxy_reads(path: Path, tmp_path: Path) -> None:
    written = files(path)
    (tmp_path / "config.yaml").write_text(written["/etc/egressproxy/config.yaml"])
    problems = Problems()
    values = read_config(tmp_path / "config.yaml", up_names(), problems)
    problems.raise_all()
    assert values["policy"] == ("/etc/egressproxy/policy.yaml",)
    policy = tmp_path / "policy.yaml"
    policy.write_text(written["/etc/egressproxy/policy.yaml"])
    done = CliRunner().invoke(cli, ["policy", "validate", str(policy)])
    assert done.exit_code == 0, done.output


def test_both_write_the_same_files() -> None:
    assert files(FILES[0]) == files(FILES[1])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_installer_is_the_one_of_the_folder(path: Path) -> None:
    installer = (DEPLOY / "egressproxy-install").read_text()
    assert files(path)["/usr/local/sbin/egressproxy-install"] == installer


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_commands_are_shell_and_name_what_is_there(path: Path) -> None:
    commands = document(path)["runcmd"]
    units = {unit.name for unit in (DEPLOY / "systemd").iterdir()}
    for command in commands:
        assert all(isinstance(word, str) for word in command)
        script = command[2] if command[:2] == ["sh", "-c"] else shlex.join(command)
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for unit in re.findall(r"\begressproxy[\w-]*\.(?:service|socket)\b", script):
            assert unit in units
    installing = [each for each in commands if each[0].endswith("egressproxy-install")]
    assert installing == [
        ["/usr/local/sbin/egressproxy-install", GIVEN["@BUNDLE_URL@"], GIVEN["@BUNDLE_SHA256@"]]
    ]
    assert commands[-1][:3] == ["systemctl", "enable", "--now"]


def test_azure_linux_s_own_firewall_is_put_away() -> None:
    """What ours accepts, a drop in another table would still drop."""
    scripts = [" ".join(each) for each in document(FILES[0])["runcmd"]]
    assert any("mask iptables.service" in script for script in scripts)


def test_the_port_is_the_socket_unit_s() -> None:
    unit = (DEPLOY / "systemd" / "egressproxy-redirect.socket").read_text()
    config = files(FILES[1])["/etc/egressproxy/config.yaml"]
    (port,) = re.findall(r"^ListenStream=(\d+)$", unit, re.MULTILINE)
    assert f'redirect: [":{port}"]' in config


def test_sysctls_are_left_to_up() -> None:
    assert not [path.name for path in FILES if re.search(r"sysctl -w|sysctl\.d", path.read_text())]
