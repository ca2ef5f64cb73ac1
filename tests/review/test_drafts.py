"""Drafts as rules and as YAML: the loader reads what they write as what they mean."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.catalog.expand import expand
from egressproxy.errors import InvalidNameError
from egressproxy.names import DnsName
from egressproxy.patterns import Pattern, parse_pattern
from egressproxy.policy.compile import compile_policy
from egressproxy.policy.load import load_policy
from egressproxy.policy.sources import EVERYONE, Clients
from egressproxy.ports import parse_ports
from egressproxy.review.drafts import (
    MAX_LITERALS,
    PREFIX,
    Draft,
    clients_of,
    literal_clients,
    rule_name,
    with_rules,
)
from egressproxy.review.suggestion import Kind
from tests.policy.building import networks, policy, rule
from tests.review.subjects import counted, subject

if TYPE_CHECKING:
    from pathlib import Path

    from egressproxy.policy.rules import Policy, Rule

HEAD = "version: 1\ncloud: AzureCloud\nparameters: {location: japaneast}\n"
GROUPS = "sources: {cluster-a: [10.240.0.0/16], 'on': [10.9.0.0/16]}\n"
CLUSTER = Clients(networks("10.240.0.0/16"), ("cluster-a",))


def draft(pattern: str | None = "a.example", ports: str = "https", **more: object) -> Draft:
    one = Draft(
        kind=Kind.NAME,
        title=str(pattern),
        subjects=(),
        why="",
        name=rule_name(str(pattern), set()),
        pattern=None if pattern is None else parse_pattern(pattern),
        ports=tuple(map(parse_ports, ports.split())),
    )
    return replace(one, **more)  # type: ignore[arg-type]  # fields of a draft


def loaded(one: Draft, folder: Path) -> Policy:
    file = folder / "policy.yaml"
    lines = "".join(f"  {line}\n" for line in one.entry())
    file.write_text(f"{HEAD}{GROUPS}{one.section}:\n{lines}")
    return load_policy(file)


def meaning(rules: tuple[Rule, ...]) -> list[dict[str, object]]:
    """All of the rules but for what they are called and where they stand."""
    return [
        {
            name: getattr(each, name)
            for name in (
                "action",
                "ports",
                "patterns",
                "networks",
                "sources",
                "source_groups",
                "tags",
                "requirement",
                "destination",
                "ech",
            )
        }
        for each in rules
    ]


CORE = expand("aks/core", cloud="AzureCloud", shared={"location": "japaneast"})
DEDICATED = {"registry": "mine00", "regions": ("eastus",), "data_endpoint": "dedicated"}
ACR = expand("acr", cloud="AzureCloud", parameters=DEDICATED)
DRAFTS = {
    "a name": draft(),
    "a wildcard": draft("*.b.example"),
    "a prefix": draft("md-*.b.example"),
    "two ports": draft(ports="https tls:8443 http:80"),
    "by a name's addresses": draft(ports="tcp:5432 udp:123"),
    "an address": draft(None, "tcp:1433", network=networks("20.1.2.3")[0]),
    "an address of six": draft(None, "tcp:1433", network=networks("2001:db8::1")[0]),
    "from a group": draft(clients=CLUSTER),
    "from a group whose name is a word of YAML": draft(
        clients=Clients(networks("10.9.0.0/16"), ("on",))
    ),
    "from literal clients": draft(clients=Clients(networks("10.240.0.4", "10.240.0.5"))),
    "from a client of six": draft(clients=Clients(networks("2001:db8::4"))),
    "a requirement": draft(None, "", title="aks/core", rows=CORE),
    "a requirement from a group": draft(None, "", title="aks/core", rows=CORE, clients=CLUSTER),
    "a requirement with options": draft(
        None, "", title="acr", rows=ACR, options=tuple(DEDICATED.items())
    ),
}


@pytest.mark.parametrize("case", DRAFTS)
def test_the_loader_reads_what_is_meant(case: str, tmp_path: Path) -> None:
    one = DRAFTS[case]
    read = loaded(one, tmp_path)
    assert meaning(read.rules) == meaning(one.rules(read))
    assert all(each.id.startswith(PREFIX) for each in one.rules(read))


@given(st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?(\.[a-z]{1,5})?", fullmatch=True))
def test_any_name_is_written_so_that_it_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    try:
        name = DnsName(text)
    except InvalidNameError:
        return  # what is no name never becomes a draft
    one = replace(draft(), pattern=Pattern(name), name=rule_name(name, set()))
    read = loaded(one, tmp_path_factory.mktemp("any"))
    assert [str(pattern) for each in read.rules for pattern in each.patterns] == [name]


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("a.example", "a.example"),
        ("*.a.example", "below a.example"),
        ("md-*.a.example", "md-.a.example"),
        ("2001:db8::1", "2001-db8-1"),
        ("_dmarc.a.example", "dmarc.a.example"),
        ("x" * 200, "x" * 90),
        ("_", "rule"),
    ],
)
def test_rules_are_named_by_what_they_allow(title: str, wanted: str) -> None:
    assert rule_name(title, set()) == wanted


def test_no_name_is_used_twice() -> None:
    taken: set[str] = set()
    assert [rule_name("a.example", taken) for _ in range(3)] == [
        "a.example",
        "a.example 2",
        "a.example 3",
    ]


def test_rules_stand_before_requirements() -> None:
    mine = policy(rule("rules/a", "a.example"), rule("mcr#x", "x.example", requirement="mcr"))
    added = [rule("acr#y", "y.example", requirement="acr"), rule("suggested/b", "b.example")]
    found = with_rules(replace(mine, requirements=("mcr",)), added)
    assert [each.id for each in found.rules] == ["rules/a", "suggested/b", "mcr#x", "acr#y"]
    assert found.requirements == ("mcr", "acr")


ONE, TWO = networks("10.1.0.0/16"), networks("10.2.0.0/16", "10.3.0.0/16")
GROUPED = policy(sources=(("a", ONE), ("b", TWO)))


@pytest.mark.parametrize(
    ("sources", "wanted"),
    [
        (["10.1.0.4"], Clients(ONE, ("a",))),
        (
            ["10.1.0.4", "10.3.0.4"],
            Clients(networks("10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"), ("a", "b")),
        ),
        (["10.1.0.4", "10.9.0.4"], EVERYONE),
    ],
)
def test_clients_are_the_groups_they_are_in(sources: list[str], wanted: Clients) -> None:
    counts = [counted(subject(src_ip=source)) for source in sources]
    assert clients_of(counts, GROUPED, compile_policy(GROUPED)) == wanted


def test_without_groups_clients_are_everyone() -> None:
    assert clients_of([counted(subject())], policy(), compile_policy(policy())) == EVERYONE


def test_literal_clients_are_few() -> None:
    counts = [counted(subject(src_ip=f"10.0.0.{i}")) for i in range(MAX_LITERALS + 1)]
    assert literal_clients(counts) is None
    assert literal_clients(counts[:2]) == Clients(networks("10.0.0.0", "10.0.0.1"))
