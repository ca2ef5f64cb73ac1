"""Microsoft's service tag file: the real one in place where there is one, and a cut of it."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import AddressError
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import find_tag_file, load_policy
from egressproxy.policy.problems import Problems
from egressproxy.policy.tags import ServiceTags, parse_tags
from egressproxy.policy.verdict import Flow, Reason
from egressproxy.ports import Protocol
from tests.policy.tag_file import CUT, real_file, tag_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.policy.conftest import Finder, Loader

SQL = "service_tags: tags.json\nrules: [{to: ['tag:%s'], ports: ['tcp:1433']}]\n"
TAGS = tag_file()


def read(text: str) -> ServiceTags:
    problems = Problems()
    tags = parse_tags(text.encode(), None, problems.of("tags.json"))
    assert tags is not None, problems.found
    return tags


def ranges(tags: ServiceTags, name: str) -> list[str]:
    return [str(network) for network in tags.addresses(name).networks()]


@pytest.mark.parametrize("tag", ["Sql.JapanEast", "sql.japaneast"])
def test_tag(load: Loader, tag: str) -> None:
    (rule,) = load(SQL % tag, {"tags.json": TAGS}).rules
    assert rule.networks == tuple(
        map(ip_network, ("13.78.61.196/32", "20.191.166.0/26", "2603:1040:404::/46"))
    )
    assert rule.tags == (tag,)


MEANT = {
    "one region": ("Storage.JapanEast", ["20.38.116.0/23"]),
    "all regions": ("Storage.*", ["20.38.116.0/23", "20.60.1.0/24"]),
    "all regions, not the service's own tag": ("storage.*", ["20.38.116.0/23", "20.60.1.0/24"]),
    "another service that begins alike is another": ("Storage", ["20.38.0.0/16", "20.60.0.0/16"]),
    "a code of a region": ("AzureCloud.norwaye", ["20.1.0.0/16"]),
    "a name for a code": ("AzureCloud.NorwayEast", ["20.1.0.0/16"]),
    "all regions by code": ("AzureCloud.*", ["20.0.0.0/15"]),
}


@pytest.mark.parametrize(("name", "expected"), MEANT.values(), ids=MEANT)
def test_what_a_name_means(name: str, expected: list[str]) -> None:
    assert ranges(read(TAGS), name) == expected


def test_a_region_name_is_no_code_where_the_code_is_a_name_elsewhere() -> None:
    """``EastUS2Stage`` has the region ``eastus2``, which is another tag's name."""
    stage = {("Storage.EastUS2Stage", "eastus2"): ["20.3.0.0/24"]}
    cloud = {("AzureCloud.eastus2", "eastus2"): ["20.2.0.0/16"]}
    named = {("Sql.EastUS2", "eastus2"): ["20.3.1.0/24"]}
    assert ranges(read(tag_file({**stage, **cloud})), "AzureCloud.EastUS2Stage") == ["20.2.0.0/16"]
    with pytest.raises(AddressError, match=r"did you mean AzureCloud\.eastus2\?"):
        read(tag_file({**stage, **cloud, **named})).find("AzureCloud.EastUS2Stage")


def test_a_collapsed_tag_judges_every_one_of_its_addresses(load: Loader) -> None:
    policy = load(SQL % "Storage.*", {"tags.json": TAGS})
    ruleset = compile_policy(policy)
    for address, reason in {
        "20.38.116.0": Reason.RULE,
        "20.38.117.255": Reason.RULE,
        "20.38.118.0": Reason.DEFAULT_DENY,
        "20.60.1.7": Reason.RULE,
        "20.60.0.1": Reason.DEFAULT_DENY,
        "2603:1040:404::1": Reason.DEFAULT_DENY,
    }.items():
        flow = Flow(protocol=Protocol.TCP, src="10.0.0.1", port=1433, dst=address)
        assert ruleset.decide(flow, 0.0).reason is reason, address


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


def test_tag_of_a_requirement_in_a_region_that_has_a_code(load: Loader) -> None:
    policy = load(
        "service_tags: tags.json\nparameters: {location: norwayeast}\n"
        "requirements: [aks/tunnel: {via: service-tag}]\n",
        {"tags.json": TAGS},
    )
    assert {str(n) for rule in policy.rules for n in rule.networks} == {"20.1.0.0/16"}


def test_tag_of_a_requirement_without_a_tag_file(problems: Finder) -> None:
    found = problems("requirements:\n  - mcr: {via: service-tag}\n")
    assert found[0].startswith("policy.yaml:4:16: mcr#")
    assert "needs the service tag MicrosoftContainerRegistry, and the policy names no" in found[0]


def test_the_edition_is_the_policys_and_not_in_its_digest(load: Loader) -> None:
    first = load(SQL % "Sql", {"tags.json": TAGS})
    second = load(SQL % "Sql", {"tags.json": tag_file(change_number=375)})
    assert first.service_tags is not None
    assert second.service_tags is not None
    assert (first.service_tags.change_number, second.service_tags.change_number) == (374, 375)
    assert first.service_tags.cloud == "Public"
    assert first.digest == second.digest
    assert load("rules: []\n").service_tags is None


def test_another_file_instead_of_the_policys_own(load: Loader, tmp_path: Path) -> None:
    load(SQL % "Sql.JapanWest", {"tags.json": TAGS})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "new.json").write_text(tag_file({("Sql.JapanWest", "japanwest"): ["20.9.0.0/16"]}))
    policy = load_policy(tmp_path / "policy.yaml", service_tags=elsewhere / "new.json")
    assert policy.rules[0].networks == (ip_network("20.9.0.0/16"),)


def test_the_tag_file_of_a_policy_that_is_wrong_otherwise(problems: Finder, tmp_path: Path) -> None:
    problems(SQL % "Storagy", {"tags.json": TAGS})
    assert find_tag_file(tmp_path / "policy.yaml") == tmp_path / "tags.json"
    assert find_tag_file(tmp_path) == tmp_path / "tags.json"


def one_tag(*prefixes: object, name: object = "Sql", **properties: object) -> str:
    """A file whose only tag has these ranges, whatever they are."""
    value = {"name": name, "properties": {"addressPrefixes": prefixes, **properties}}
    return json.dumps({"cloud": "Public", "values": [value]})


UNMODIFIED = ", hint: download ServiceTags_*.json from Microsoft, unmodified"
NOT_ONE = "tags.json: not a service tag file: "
PLACE = "policy.yaml:4:15: "
PROBLEMS = {
    "unknown region": (
        SQL % "Sql.JapanEst",
        TAGS,
        PLACE + "there is no service tag 'Sql.JapanEst',"
        " hint: did you mean Sql.JapanWest or Sql.JapanEast?",
    ),
    "unknown service": (
        SQL % "Storagy.JapanEast",
        TAGS,
        PLACE + "there is no service tag 'Storagy.JapanEast', hint: did you mean Storage.Japan",
    ),
    "unknown service, all regions": (
        SQL % "Storagy.*",
        TAGS,
        PLACE + "there is no service tag 'Storagy.*', hint: did you mean Storage.* or StorageMo",
    ),
    "unknown, no region": (SQL % "Squl", TAGS, PLACE + "there is no service tag 'Squl', hint: did"),
    "unknown, nothing near": (
        SQL % "Zzz",
        TAGS,
        PLACE + "there is no service tag 'Zzz', hint: egressproxy tags list shows what there is",
    ),
    "an address": (
        SQL % "20.38.116.7",
        TAGS,
        PLACE + "there is no service tag '20.38.116.7',"
        " hint: egressproxy tags list --match 20.38.116.7 says which tags have it",
    ),
    "a service whose tags all have a second part": (
        SQL % "AzureFrontDoor",
        TAGS,
        PLACE + "there is no service tag 'AzureFrontDoor', hint: did you mean AzureFrontDoor.First"
        "Party or AzureFrontDoor.Backend?",
    ),
    "a second part that is no region": (
        SQL % "AzureFrontDoor.*",
        TAGS,
        PLACE + "there is no service tag 'AzureFrontDoor.*', hint: it has no regions, there is"
        " AzureFrontDoor.FirstParty, AzureFrontDoor.Backend",
    ),
    "a service without parts": (
        SQL % "StorageMover.*",
        TAGS,
        PLACE + "there is no service tag 'StorageMover.*', hint: it has no regions, there is"
        " StorageMover",
    ),
    "a star elsewhere": (
        SQL % "*.JapanEast",
        TAGS,
        PLACE + "there is no service tag '*.JapanEast', hint: '*' stands for all regions of one",
    ),
    "a star alone": (SQL % "*", TAGS, PLACE + "there is no service tag '*', hint: '*' stands for"),
    "a star in a part": (SQL % "Storage.Japan*", TAGS, PLACE + "there is no service tag 'Storage."),
    "not in the file": (
        SQL % "Internet",
        TAGS,
        PLACE + "there is no service tag 'Internet',"
        " hint: Microsoft's file does not have it: write 0.0.0.0/0 and ::/0",
    ),
    "wrong range": (
        SQL % "sql",
        one_tag("20.0.0.1/8"),
        PLACE + "service tag 'Sql' has a wrong range: 20.0.0.1/8 has host bits set" + UNMODIFIED,
    ),
    "everything": (
        SQL % "Sql",
        one_tag("20.0.0.0/16", "0.0.0.0/0"),
        PLACE + "service tag 'Sql' is nearly everything, it has 0.0.0.0/0" + UNMODIFIED,
    ),
    "everything in pieces": (
        SQL % "Sql",
        one_tag(*(f"{n}.0.0.0/8" for n in range(11, 100, 3))),
        PLACE + "service tag 'Sql' is nearly everything, it has 11.0.0.0/8" + UNMODIFIED,
    ),
    "everything in IPv6": (
        SQL % "Sql",
        one_tag("2000::/3"),
        PLACE + "service tag 'Sql' is nearly everything, it has 2000::/3" + UNMODIFIED,
    ),
    "a private range": (
        SQL % "Sql",
        one_tag("20.0.0.0/16", "10.1.0.0/16"),
        PLACE + "service tag 'Sql' has 10.1.0.0/16, which is not public" + UNMODIFIED,
    ),
    "the metadata service": (
        SQL % "Sql",
        one_tag("169.254.169.254"),
        PLACE + "service tag 'Sql' has 169.254.169.254/32, which is not public" + UNMODIFIED,
    ),
    "IPv4 written as IPv6": (
        SQL % "Sql",
        one_tag("::ffff:20.0.0.0/112"),
        PLACE + "service tag 'Sql' has ::ffff:1400:0/112, which is not public" + UNMODIFIED,
    ),
    "tag without tag:": (
        "service_tags: tags.json\nrules: [{to: [Sql.JapanEast], ports: [https]}]\n",
        TAGS,
        PLACE + "sql.japaneast is the name of a service tag, hint: write tag:sql",
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
    "half a download": (SQL % "Sql", TAGS[:2000], "tags.json:91:11: not JSON: Unterminated string"),
    "too deep": (
        SQL % "Sql",
        "[" * 100_000,
        "tags.json: nested too deep for a service tag file",
    ),
    "a number that takes long to read": (
        SQL % "Sql",
        '{"changeNumber": ' + "9" * 100_000 + "}",
        NOT_ONE + "Exceeds the limit",
    ),
    "a list": (
        SQL % "Sql",
        "[]",
        NOT_ONE + "list indices must be integers or slices, not str",
    ),
    "no values": (SQL % "Sql", '{"cloud": "Public"}', NOT_ONE + "'values' is missing"),
    "values that are none": (
        SQL % "Sql",
        '{"cloud": "Public", "values": {"name": 1}}',
        NOT_ONE + "cloud and values are a text and a list",
    ),
    "a cloud that is no text": (
        SQL % "Sql",
        '{"cloud": ["Public"], "values": []}',
        NOT_ONE + "cloud and values are a text and a list",
    ),
    "a value that is a text": (
        SQL % "Sql",
        '{"cloud": "Public", "values": ["Sql"]}',
        NOT_ONE + "string indices must be integers",
    ),
    "a change number that is a text": (
        SQL % "Sql",
        '{"cloud": "Public", "values": [], "changeNumber": "374"}',
        NOT_ONE + "changeNumber is a number from 0",
    ),
    "a change number below 0": (
        SQL % "Sql",
        '{"cloud": "Public", "values": [], "changeNumber": -1}',
        NOT_ONE + "changeNumber is a number from 0",
    ),
    "a tag without a name": (
        SQL % "Sql",
        one_tag(name=1),
        NOT_ONE + "name and addressPrefixes are a text and a list",
    ),
    "a name that a terminal would obey": (
        SQL % "Sql",
        one_tag(name="Sql\x1b[2J"),
        NOT_ONE + "'Sql\\x1b[2J' is not the name of a tag",
    ),
    "a region that a terminal would obey": (
        SQL % "Sql",
        one_tag(region="\x9b2J"),
        NOT_ONE + "'\\x9b2J' is not the name of a region",
    ),
    "a cloud that a terminal would obey": (
        SQL % "Sql",
        tag_file(cloud="Public\x1b[2J"),
        NOT_ONE + "'Public\\x1b[2J' is not the name of a cloud",
    ),
    "a range that is a number": (
        SQL % "Sql",
        one_tag(1),
        NOT_ONE + "the ranges, region and systemService of Sql are not texts",
    ),
    "a region that is a list": (
        SQL % "Sql",
        one_tag("20.0.0.0/16", region=["japaneast"]),
        NOT_ONE + "the ranges, region and systemService of Sql are not texts",
    ),
    "a tag that is there twice": (
        SQL % "Sql",
        tag_file({("Sql", ""): ["20.0.0.0/16"], ("SQL", ""): ["20.1.0.0/16"]}),
        NOT_ONE + "the tag SQL is there twice",
    ),
    "too many ranges": (
        SQL % "Sql",
        one_tag(*["20.0.0.0/16"] * 400_001),
        NOT_ONE + "more than 400,000 ranges",
    ),
    "too large": (SQL % "Sql", " " * (16 << 20) + "{}", "tags.json: larger than 16 MB"),
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


def test_a_wrong_tag_is_told_wherever_it_is_named(problems: Finder) -> None:
    text = "service_tags: tags.json\nrules:\n" + "  - {to: ['tag:Sql'], ports: ['tcp:1']}\n" * 2
    found = problems(text, {"tags.json": one_tag("10.0.0.0/8")})
    assert [one.partition(" ")[0] for one in found] == ["policy.yaml:5:11:", "policy.yaml:6:11:"]


def test_a_wrong_tag_file_does_not_hide_other_problems(problems: Finder) -> None:
    found = problems("cloud: x\n" + SQL % "Sql", {"tags.json": "[]"}, head="version: 1\n")
    assert [one.partition(":")[0] for one in found] == ["policy.yaml", "tags.json"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "properties", "addressPrefixes", "region", "values", "cloud"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_a_file_or_a_problem(content: Any) -> None:
    values = content if isinstance(content, list) else [content]
    for whole in (content, {"cloud": "Public", "values": values}):
        problems = Problems()
        tags = parse_tags(json.dumps(whole).encode(), None, problems.of("tags.json"))
        assert (tags is None) is bool(problems.found)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_a_problem(data: bytes) -> None:
    problems = Problems()
    tags = parse_tags(data, None, problems.of("tags.json"))
    assert (tags is None) is bool(problems.found)


@given(st.text(max_size=20))
def test_any_name_is_found_or_has_a_hint(name: str) -> None:
    tags = read(TAGS)
    if any(tag.name.lower() == name.lower() for tag in tags.tags):
        assert tags.find(name)
    else:
        with pytest.raises(AddressError, match="hint: "):
            tags.find(name)


# The real file, read in place


@pytest.fixture(scope="module")
def real() -> ServiceTags:
    return read(real_file().read_text())


def test_the_real_file_has_no_tag_that_would_be_refused(real: ServiceTags) -> None:
    assert len(real.tags) > 2000
    assert {tag.name.lower() for tag in real.tags} >= {name.lower() for name, _ in CUT}
    for tag in real.tags:
        addresses = tag.addresses()
        assert addresses
        assert len(addresses.networks()) <= len(tag.prefixes)


@pytest.mark.parametrize(
    "name",
    [
        "AzureMonitor",
        "azurecloud.JapanEast",
        "AzureContainerRegistry.AustraliaEast",
        "AzureCloud.norwayeast",
        "AzureCloud.GermanyWestCentral",
        "Storage.*",
        "AzureCloud.*",
        "AzureMonitor.Core",
    ],
)
def test_names_in_the_real_file(real: ServiceTags, name: str) -> None:
    assert real.addresses(name)


def test_all_regions_of_the_real_file(real: ServiceTags) -> None:
    union = real.addresses("Sql.*")
    assert len(real.find("Sql.*")) > 50
    assert not real.addresses("Sql.JapanEast") - union
    assert "AzureMonitor.Core" not in {tag.name for tag in real.find("AzureMonitor.*")}


def test_a_policy_with_the_real_file(tmp_path: Path) -> None:
    root = tmp_path / "policy.yaml"
    root.write_text(
        f"version: 1\ncloud: AzureCloud\nservice_tags: {real_file()}\n"
        "rules: [{to: ['tag:azuremonitor', 'tag:AzureCloud'], ports: ['tcp:443']}]\n"
    )
    policy = load_policy(root, allow_outside=True)
    (rule,) = policy.rules
    assert len(rule.networks) > 5000
    assert policy.service_tags is not None
    assert policy.service_tags.day == "2025-10-20"
