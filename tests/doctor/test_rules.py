"""nft and the kernel's rules: judged from facts, and read from the real kernel."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.doctor.rules import KernelRules, check_rules, read_rules
from egressproxy.errors import KernelError
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.routing import RoutingState
from lab.namespaces import namespaces
from tests.doctor.machines import levels, machine

if TYPE_CHECKING:
    from pathlib import Path

GOOD = KernelRules(
    is_there=True, digest="ab" * 32, version="1.0.6", routing=RoutingState(guard=True)
)
TABLE = "table inet egressproxy"


def chain(family: str, table: str, name: str, **more: str) -> dict[str, Any]:
    return {"chain": {"family": family, "table": table, "name": name, **more}}


def listed(*chains: dict[str, Any]) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *chains]})


OURS = chain("inet", "egressproxy", "forward", hook="forward", policy="drop")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (GOOD, {TABLE: "ok", "routing guard": "ok", "kernel modules": "ok"}),
        (
            KernelRules(version="1.0.6", routing=RoutingState()),
            {TABLE: "warn", "kernel modules": "ok"},
        ),
        (
            KernelRules(version="1.0.6", routing=RoutingState(guard=True)),
            {TABLE: "warn", "routing guard": "ok", "kernel modules": "ok"},
        ),
        (
            KernelRules(is_there=True, version="1.0.6", routing=RoutingState()),
            {TABLE: "ok", "routing guard": "fail", "kernel modules": "ok"},
        ),
        (
            KernelRules(is_there=True, routing=RoutingState(guard=True, ahead=("from all",))),
            {TABLE: "ok", "routing guard": "warn", "kernel modules": "ok"},
        ),
        (
            KernelRules(lacking={"TPROXY": KernelError("no", hint="modprobe nft_tproxy")}),
            {TABLE: "warn", "nft TPROXY": "fail"},
        ),
    ],
    ids=["good", "no-table", "guard-alone", "no-guard", "overtaken-guard", "no-module"],
)
def test_rules(rules: KernelRules, expected: dict[str, str], tmp_path: Path) -> None:
    found = levels(check_rules(machine(tmp_path, {}, listed(OURS)), rules))
    assert found == {"nft": "ok", "other firewalls": "ok", **expected}


@pytest.mark.parametrize(("digest", "level"), [("", "ok"), ("ab" * 32, "ok"), ("cd" * 32, "warn")])
def test_the_policy_that_is_in_force(digest: str, level: str, tmp_path: Path) -> None:
    found = levels(check_rules(machine(tmp_path, {}, listed(OURS)), GOOD, digest))
    assert found[TABLE] == level


@pytest.mark.parametrize(
    ("in_force", "configured", "level"),
    [("ab", "ab", ""), ("ab", "cd", "warn"), ("", "cd", ""), ("ab", "", "")],
    ids=["same", "edited", "nobody-knows", "no-configuration"],
)
def test_the_options_that_are_in_force(
    in_force: str, configured: str, level: str, tmp_path: Path
) -> None:
    rules = replace(GOOD, options=in_force)
    found = levels(check_rules(machine(tmp_path, {}, listed(OURS)), rules, "", configured))
    assert found.get("table's options", "") == level


@pytest.mark.parametrize(
    ("routing", "is_closed"),
    [
        (RoutingState(guard=True), True),
        (RoutingState(guard=True, ahead=("ip rule 50",)), False),
        (RoutingState(), False),
        (None, False),
    ],
    ids=["guard", "overtaken", "no-guard", "not-known"],
)
def test_closed_is_what_the_guard_stops(routing: RoutingState | None, is_closed: bool) -> None:
    assert KernelRules(routing=routing).is_closed is is_closed


def test_without_nft_there_is_nothing_to_ask(tmp_path: Path) -> None:
    error = KernelError("nft: there is no such program", hint="apt install nftables")
    (found,) = check_rules(machine(tmp_path, {}), KernelRules(error=error))
    assert (found.check, found.level, found.fix) == ("nft", "fail", "apt install nftables")


@pytest.mark.parametrize(
    ("printed", "level"),
    [
        (listed(OURS, chain("ip", "filter", "FORWARD", hook="forward", policy="drop")), "warn"),
        (listed(OURS, chain("inet", "f", "in", hook="input", policy="drop")), "warn"),
        (listed(OURS, chain("ip", "filter", "FORWARD", hook="forward", policy="accept")), "ok"),
        (listed(chain("ip", "nat", "x")), "ok"),
        ("not json", "ok"),
        ("[]", "ok"),
        ('{"nftables": [1]}', "ok"),
        (None, "ok"),
    ],
    ids=["docker", "input", "accepts", "no-hook", "garbage", "a-list", "numbers", "no-nft"],
)
def test_others(printed: str | None, level: str, tmp_path: Path) -> None:
    found = list(check_rules(machine(tmp_path, {}, printed), GOOD))
    assert levels(found)["other firewalls"] == level


def test_no_program() -> None:
    found = read_rules(Nft("no-such-nft-here"))
    assert found.error is not None
    assert "nftables" in found.error.hint


@pytest.mark.netns
def test_the_kernel_can_all_that_our_table_uses(tmp_path: Path) -> None:
    with namespaces(("rules",), tmp_path) as made, made["rules"].entered():
        found = read_rules(Nft())
        assert found.error is None
        assert found.lacking == {}
        assert not found.is_there
        made["rules"].run("nft", "add", "table", "inet", "egressproxy")
        assert read_rules(Nft()).is_there
        assert read_rules(Nft()).proxy_ports == frozenset()
        assert made["rules"].run("nft", "list", "tables").split() == [
            "table",
            "inet",
            "egressproxy",
        ]
