"""Microsoft's service tag file: the real one in place where there is one, and a cut of it."""

from __future__ import annotations

import json
import os
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.policy.load import load_policy

if TYPE_CHECKING:
    from tests.policy.conftest import Finder, Loader

SQL = "service_tags: tags.json\nrules: [{to: ['tag:%s'], ports: ['tcp:1433']}]\n"
TAGS = json.dumps(
    {
        "changeNumber": 374,
        "cloud": "Public",
        "values": [
            {
                "name": name,
                "id": name,
                "properties": {"region": "", "platform": "Azure", "addressPrefixes": prefixes},
            }
            for name, prefixes in (
                ("Sql.JapanEast", ["20.191.166.0/26", "13.78.61.196/32", "2603:1040:404::/46"]),
                ("Sql.JapanWest", ["20.18.179.128/26"]),
                ("MicrosoftContainerRegistry", ["20.51.12.32/27"]),
                ("AzureFrontDoor.FirstParty", ["13.107.213.0/24"]),
                ("Broken", ["20.0.0.1/8"]),
            )
        ],
    }
)


@pytest.mark.parametrize("tag", ["Sql.JapanEast", "sql.japaneast"])
def test_tag(load: Loader, tag: str) -> None:
    (rule,) = load(SQL % tag, {"tags.json": TAGS}).rules
    assert rule.networks == tuple(
        map(ip_network, ("13.78.61.196/32", "20.191.166.0/26", "2603:1040:404::/46"))
    )
    assert rule.tags == (tag,)


def test_tag_of_two_rules(load: Loader) -> None:
    rule = "  - {to: ['tag:Sql.JapanWest'], ports: ['tcp:%s']}\n"
    policy = load("service_tags: t.json\nrules:\n" + rule % 1 + rule % 2, {"t.json": TAGS})
    assert policy.rules[0].networks == policy.rules[1].networks == (ip_network("20.18.179.128/26"),)


def test_tag_of_a_requirement(load: Loader) -> None:
    policy = load(
        "service_tags: tags.json\nrequirements: [mcr: {via: service-tag}]\n", {"tags.json": TAGS}
    )
    assert {str(network) for rule in policy.rules for network in rule.networks} == {
        "20.51.12.32/27",
        "13.107.213.0/24",
    }


def test_tag_of_a_requirement_without_a_tag_file(problems: Finder) -> None:
    found = problems("requirements:\n  - mcr: {via: service-tag}\n")
    assert found[0].startswith("policy.yaml:4:16: mcr#")
    assert "needs the service tag MicrosoftContainerRegistry, and the policy names no" in found[0]


PROBLEMS = {
    "unknown": (
        SQL % "Sql.JapanEst",
        TAGS,
        "policy.yaml:4:15: there is no service tag 'Sql.JapanEst',"
        " hint: did you mean Sql.JapanWest or Sql.JapanEast?",
    ),
    "unknown, nothing near": (
        SQL % "Zzz",
        TAGS,
        "policy.yaml:4:15: there is no service tag 'Zzz', hint: such as Sql.JapanEast",
    ),
    "wrong range": (
        SQL % "broken",
        TAGS,
        "policy.yaml:4:15: service tag 'Broken' has a wrong range: 20.0.0.1/8 has host bits set,"
        " hint: download ServiceTags_*.json from Microsoft, unmodified",
    ),
    "tag without tag:": (
        "service_tags: tags.json\nrules: [{to: [Sql.JapanEast], ports: [https]}]\n",
        TAGS,
        "policy.yaml:4:15: sql.japaneast is the name of a service tag, hint: write tag:sql",
    ),
    "of another cloud": (
        SQL % "Sql.JapanEast",
        TAGS.replace("Public", "China"),
        "tags.json: the service tags are of 'China', hint: the policy is of AzureCloud",
    ),
    "not JSON": (
        SQL % "Sql",
        "{\n]",
        "tags.json:2:1: not JSON: Expecting property name enclosed in double quotes, hint: down",
    ),
    "too deep": (
        SQL % "Sql",
        "[" * 100_000,
        "tags.json: nested too deep for a service tag file",
    ),
    "a list": (
        SQL % "Sql",
        "[]",
        "tags.json: not a service tag file: list indices must be integers or slices, not str",
    ),
    "no values": (
        SQL % "Sql",
        '{"cloud": "Public"}',
        "tags.json: not a service tag file: 'values' is missing",
    ),
    "a tag without a name": (
        SQL % "Sql",
        '{"cloud": "Public", "values": [{"name": 1, "properties": {"addressPrefixes": []}}]}',
        "tags.json: not a service tag file: name and addressPrefixes are a text and a list",
    ),
    "a range that is a number": (
        SQL % "Sql",
        '{"cloud": "Public", "values": [{"name": "Sql", "properties": {"addressPrefixes": [1]}}]}',
        "tags.json: not a service tag file: the ranges of Sql are not texts",
    ),
    "not UTF-8": (SQL % "Sql", "\0", "tags.json:1:1: a NUL character"),
    "no file": (
        "service_tags: none.json\nrules: [{to: ['tag:Sql'], ports: ['tcp:1433']}]\n",
        "",
        "policy.yaml:3:15: 'none.json' cannot be read: No such file or directory",
    ),
}


@pytest.mark.parametrize(("text", "tags", "expected"), PROBLEMS.values(), ids=PROBLEMS)
def test_problem(problems: Finder, text: str, tags: str, expected: str) -> None:
    (found,) = problems(text, {"tags.json": tags})
    assert found.startswith(expected)


def test_a_wrong_tag_file_does_not_hide_other_problems(problems: Finder) -> None:
    found = problems("cloud: x\n" + SQL % "Sql", {"tags.json": "[]"}, head="version: 1\n")
    assert [one.partition(":")[0] for one in found] == ["policy.yaml", "tags.json"]


SHARED: Final = Path(__file__).parents[3] / "shared" / "servicetags"
"""Where the weekly file may lie, beside the repository; SERVICE_TAGS_FOLDER names another."""


def test_the_real_file(tmp_path: Path) -> None:
    folder = Path(os.environ.get("SERVICE_TAGS_FOLDER", SHARED))
    files = sorted(folder.glob("ServiceTags_Public*.json")) if folder.is_dir() else []
    if not files:
        pytest.skip("not in this checkout: a ServiceTags_Public*.json in ../shared/servicetags")
    root = tmp_path / "policy.yaml"
    root.write_text(
        f"version: 1\ncloud: AzureCloud\nservice_tags: {files[-1]}\n"
        "rules: [{to: ['tag:azuremonitor', 'tag:AzureCloud'], ports: ['tcp:443']}]\n"
    )
    (rule,) = load_policy(root, allow_outside=True).rules
    assert len(rule.networks) > 5000
