"""``egressproxy tags``: a cut of Microsoft's file, and two weeks of it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from egressproxy.cli.main import EXIT_DENY, EXIT_ERROR
from egressproxy.cli.tags import command
from egressproxy.errors import AddressError, EgressproxyError, PolicyError
from tests.policy.tag_file import CUT, real_file, tag_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

OLD, NEW = "ServiceTags_Public_20261012.json", "ServiceTags_Public_20261019.json"
NOW = datetime(2026, 10, 20, 12, tzinfo=UTC).timestamp()
POLICY = f"""\
version: 1
cloud: AzureCloud
service_tags: {OLD}
rules:
  - {{name: sql, to: ["tag:Sql.JapanEast"], ports: ["tcp:1433"]}}
  - {{name: storage, to: ["tag:Storage.*", "tag:StorageMover"], ports: ["tcp:443", "tcp:445"]}}
  - {{name: no-cloud, action: deny, to: ["tag:AzureCloud.NorwayEast"], ports: ["tcp:22"]}}
  - {{name: same, to: ["tag:Sql.JapanWest"], ports: ["tcp:1433"]}}
  - {{name: names, to: [github.com], ports: [https]}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy and two files: in the younger one a rule has more, less, much more, or the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time", lambda: NOW)
    new = dict(CUT)
    new["Sql.JapanEast", "japaneast"] = ("20.191.166.0/25", "2603:1040:404::/46")
    many = tuple(f"20.61.{number}.0/25" for number in range(9))
    new["Storage.JapanWest", "japanwest"] = many
    new["AzureCloud.norwaye", "norwaye"] = ("20.1.0.0/17",)
    del new["AzureFrontDoor.Backend", ""]
    (tmp_path / OLD).write_text(tag_file())
    (tmp_path / NEW).write_text(tag_file(new, change_number=375))
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def as_json(*arguments: str, code: int = 0) -> dict[str, Any]:
    content = json.loads(run(*arguments, "--json", code=code).stdout)
    assert isinstance(content, dict)
    return content


PAGES = {
    "tags-list.txt": ("list", OLD),
    "tags-list-match.txt": ("list", "--match", "norway", "--policy", "policy.yaml"),
    "tags-show.txt": ("show", "Sql.JapanEast", OLD),
    "tags-diff.txt": ("diff", OLD, NEW),
    "tags-diff-policy.txt": ("diff", OLD, NEW, "--policy", "policy.yaml"),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "arguments"), PAGES.items(), ids=PAGES)
def test_golden(name: str, arguments: tuple[str, ...], golden: Callable[[str, str], None]) -> None:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == (EXIT_DENY if arguments[0] == "diff" else 0)
    golden(name, result.output)


MATCHES = {
    "a part": ("japanwest", ["Sql.JapanWest"]),
    "in capitals": ("JAPANWEST", ["Sql.JapanWest"]),
    "a pattern": ("sql.*", ["Sql.JapanEast", "Sql.JapanWest"]),
    "a pattern of a region": ("japanw*", ["Sql.JapanWest"]),
    "a pattern of a service": ("sto*mover", ["StorageMover"]),
    "as in a policy": ("tag:StorageMover", ["StorageMover"]),
    "an address": ("20.38.116.7", ["Storage", "Storage.JapanEast"]),
    "an IPv6 address": ("2603:1040:404::1", ["Sql", "Sql.JapanEast"]),
    "a range": ("20.18.0.0/16", ["Sql", "Sql.JapanWest"]),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("text", "expected"), MATCHES.values(), ids=MATCHES)
def test_match(text: str, expected: list[str]) -> None:
    found = as_json("list", OLD, "--match", text)
    assert [tag["name"] for tag in found["tags"]] == expected


@pytest.mark.usefixtures("folder")
def test_nothing_matches() -> None:
    result = run("list", OLD, "--match", "zzz", code=EXIT_DENY)
    assert (result.stdout, result.stderr) == ("", f"no tag of {OLD} matches 'zzz'\n")
    assert as_json("list", OLD, "--match", "9.9.9.9", code=EXIT_DENY)["tags"] == []


@pytest.mark.usefixtures("folder")
def test_list_as_json() -> None:
    page = as_json("list", OLD)
    assert {key: page[key] for key in page if key != "tags"} == {
        "file": OLD,
        "cloud": "Public",
        "change_number": 374,
        "dated": "2026-10-12",
        "dated_by": "name",
    }
    assert page["tags"][-2] == {
        "name": "Storage",
        "region": None,
        "system_service": "Storage",
        "ipv4_ranges": 2,
        "ipv6_ranges": 0,
    }


SHOWN = {
    "one region": (
        "Storage.JapanEast",
        ["20.38.116.0/23"],
        "Storage.JapanEast, region japaneast: 1 IPv4 range (512 addresses), 0 IPv6 ranges\n",
    ),
    "all regions": ("storage.*", ["20.38.116.0/23", "20.60.1.0/24"], "storage.* is 2 tags: 2 IPv4"),
    "as in a policy": (
        "tag:StorageMover",
        ["4.145.74.52/30"],
        "StorageMover, all regions: 1 IPv4 ",
    ),
    "a service with regions": (
        "Storage",
        ["20.38.0.0/16", "20.60.0.0/16"],
        "Storage, all regions (Storage.REGION: 2): 2 IPv4 ranges (131,072 addresses), 0 IPv6 ",
    ),
    "a region's code": (
        "AzureCloud.NorwayEast",
        ["20.1.0.0/16"],
        "AzureCloud.NorwayEast is AzureCloud.norwaye: 1 IPv4 range (65,536 addresses), 0 IPv6",
    ),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "ranges", "said"), SHOWN.values(), ids=SHOWN)
def test_show(name: str, ranges: list[str], said: str) -> None:
    result = run("show", name, OLD)
    assert result.stdout.splitlines() == ranges
    assert result.stderr.startswith(said)
    page = as_json("show", name, OLD)
    assert page["ranges"] == ranges
    assert page["name"] == name.removeprefix("tag:")


@pytest.mark.usefixtures("folder")
def test_show_of_an_unknown_tag() -> None:
    with pytest.raises(AddressError, match=r"did you mean Sql\.JapanWest or Sql\.JapanEast"):
        run("show", "Sql.JapanEst", OLD)


@pytest.mark.usefixtures("folder")
def test_diff_of_a_policy_as_json_has_every_range() -> None:
    page = as_json("diff", OLD, NEW, "--policy", "policy.yaml", code=EXIT_DENY)
    assert (page["old"]["change_number"], page["new"]["change_number"]) == (374, 375)
    sql, storage, cloud = page["rules"]
    assert sql == {
        "rule": "rules/sql",
        "action": "allow",
        "tags": ["Sql.JapanEast"],
        "ports": ["tcp:1433"],
        "added": ["20.191.166.64/26"],
        "removed": ["13.78.61.196/32"],
    }
    assert len(storage["added"]) == 9
    assert (cloud["action"], cloud["removed"]) == ("deny", ["20.1.128.0/17"])


@pytest.mark.usefixtures("folder")
def test_diff_of_tags_as_json() -> None:
    page = as_json("diff", OLD, NEW, code=EXIT_DENY)
    assert {(tag["name"], tag["is_new"], tag["is_gone"]) for tag in page["tags"]} == {
        ("Sql.JapanEast", False, False),
        ("AzureCloud.norwaye", False, False),
        ("Storage.JapanWest", True, False),
        ("AzureFrontDoor.Backend", False, True),
    }


def test_diff_without_a_difference(folder: Path) -> None:
    assert run("diff", OLD, OLD).stderr.endswith("\n0 of 13 tags differ\n")
    result = run("diff", OLD, OLD, "--policy", "policy.yaml")
    assert (result.stdout, result.stderr.splitlines()[-1]) == (
        "",
        "0 of 4 rules with service tags differ: for this policy nothing changes",
    )
    assert as_json("diff", OLD, OLD, "--policy", "policy.yaml")["rules"] == []
    (folder / "plain.yaml").write_text("version: 1\ncloud: AzureCloud\nrules: []\n")
    result = run("diff", OLD, NEW, "--policy", "plain.yaml")
    assert result.stderr.endswith("\nthis policy names no service tag\n")


def test_a_file_with_which_the_policy_would_be_refused(folder: Path) -> None:
    gone = {key: value for key, value in CUT.items() if key[0] != "StorageMover"}
    (folder / NEW).write_text(tag_file(gone, change_number=375))
    runner = CliRunner()
    result = runner.invoke(command, ["diff", OLD, NEW, "--policy", "policy.yaml"])
    assert isinstance(result.exception, PolicyError)
    assert "there is no service tag 'StorageMover'" in str(result.exception)
    assert result.stderr.endswith(f"with {NEW} this policy is refused:\n")


def test_swapped_and_of_two_clouds(folder: Path) -> None:
    told = run("diff", NEW, OLD, code=EXIT_DENY).stderr
    assert "warning: OLD is the younger one, are they swapped?\n" in told
    (folder / "gov.json").write_text(tag_file(cloud="AzureGovernment"))
    assert "warning: the files are of two clouds\n" in run("diff", OLD, "gov.json").stderr


def test_an_old_file_is_called_old(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW + 30 * 86400)
    warning = f"warning: {OLD} is 38 days old, and there is a new one every week\n"
    assert run("list", OLD).stderr.endswith(warning)
    assert run("show", "Sql", OLD).stderr.endswith(warning)
    (folder / "policy.yaml").write_text(POLICY.replace(OLD, NEW))
    assert "31 days old" in run("list", "--policy", "policy.yaml").stderr


def test_the_file_of_a_policy_that_is_wrong_otherwise(folder: Path) -> None:
    """One looks at the tags because the policy has a wrong one."""
    (folder / "policy.yaml").write_text(POLICY.replace("Sql.JapanEast", "Squl"))
    assert run("show", "Sql.JapanWest", "--policy", "policy.yaml").stdout == "20.18.179.128/26\n"


USAGE = {
    "no file": (("list",), "give FILE, Microsoft's ServiceTags_*.json, or --policy"),
    "a policy as file": (("list", "policy.yaml"), "policy.yaml is a policy: write --policy policy"),
    "no policy": (("diff", OLD, NEW, "--policy", "no.yaml"), "Path 'no.yaml' does not exist"),
    "the file first": (("show", OLD, "Sql"), f"first the tag, then the file: tags show Sql {OLD}"),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("arguments", "says"), USAGE.values(), ids=USAGE)
def test_usage(arguments: tuple[str, ...], says: str) -> None:
    assert says in run(*arguments, code=EXIT_ERROR).stderr


def test_files_that_cannot_be_read(folder: Path) -> None:
    for name, why in (("none.json", "No such file or directory"), (".", "Is a directory")):
        with pytest.raises(EgressproxyError, match=f"^{name} cannot be read: {why}$"):
            run("list", name)
    (folder / "bad.json").write_text("[")
    with pytest.raises(PolicyError, match=r"bad\.json:1:2: not JSON"):
        run("list", "bad.json")
    (folder / "plain.yaml").write_text("version: 1\ncloud: AzureCloud\nrules: []\n")
    with pytest.raises(EgressproxyError, match="names no service tag file"):
        run("list", "--policy", "plain.yaml")
    (folder / "plain.yaml").write_text("version: 1\ncloud: AzureCloud\nservice_tags: none.json\n")
    with pytest.raises(PolicyError, match=r"'none\.json' cannot be read"):
        run("list", "--policy", "plain.yaml")
    (folder / "plain.yaml").write_text("- no policy\n")
    with pytest.raises(PolicyError):
        run("list", "--policy", "plain.yaml")


def test_a_terminal_gets_a_table_of_its_width(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("egressproxy.cli.tags_page.is_terminal", lambda: True)
    wide = run("diff", str(folder / OLD), NEW, "--policy", "policy.yaml", code=EXIT_DENY).stdout
    assert max(map(len, wide.splitlines())) <= 60
    assert "- 13.78.61.196/32" in wide


def test_the_real_file() -> None:
    file = str(real_file())
    assert len(run("list", file).stdout.splitlines()) > 50
    assert len(run("show", "AzureMonitor", file).stdout.splitlines()) > 1000
    assert run("diff", file, file).stdout == ""
