"""The table held to what was put, against a real nft: each way to change it is seen and mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from egressproxy.errors import KernelError
from egressproxy.kernel.firewall_options import FirewallOptions
from egressproxy.kernel.held_table import CHANGED, ELEMENTS, GONE, HeldTable
from egressproxy.kernel.host_state import read_state
from egressproxy.kernel.kernel_policy import kernel_policy
from egressproxy.kernel.nft_apply import Nft
from egressproxy.kernel.nft_names import name_sets, rule_counter
from egressproxy.kernel.nft_script import table_script
from egressproxy.names import DnsName
from lab.namespaces import namespaces
from tests.policy.building import NOON, policy, rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from egressproxy.kernel.held_table import Script
    from egressproxy.kernel.nft_apply import TableState
    from lab.namespaces import Namespace

pytestmark = pytest.mark.netns

MANY: Final = tuple(f"30.0.{i}.{i}" for i in range(1, 12))
NTP: Final = name_sets(DnsName("ntp.example"))[0]
RULES: Final = (
    rule("rules/many", *MANY, ports="tcp:1433"),
    rule("rules/ntp", "ntp.example", ports="udp:123"),
    rule("rules/web", "www.example", ports="https"),
)
OPTIONS: Final = FirewallOptions(redirect_port=15001)


def script_of(*rules: object) -> Script:
    made = kernel_policy(policy(*rules), NOON)  # type: ignore[arg-type]

    def script(existing: TableState | None) -> str:
        return table_script(made, OPTIONS, existing)

    return script


WHOLE: Final = script_of(*RULES)


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    with namespaces(["held"], tmp_path) as made, made["held"].entered():
        yield made["held"]


@pytest.fixture
def held(namespace: Namespace, tmp_path: Path) -> HeldTable:
    table = HeldTable(Nft(), tmp_path / "state.json")
    table.put(WHOLE)
    Nft().add_elements(NTP, [("30.9.0.1", 600)])
    return table


def range_set() -> str:
    state = Nft().table_state()
    assert state is not None
    return next(name for name in state.sets if name.startswith("s4_"))


def test_put_is_held_and_remembered(held: HeldTable, tmp_path: Path) -> None:
    assert not held.difference()
    assert not held.difference(elements=True)
    state = Nft().table_state()
    assert state is not None
    assert read_state(tmp_path / "state.json").fingerprint == state.fingerprint
    assert not held.put_back()


def test_nothing_is_held_before_the_first() -> None:
    table = HeldTable(Nft("/nonexistent/nft"), None)  # type: ignore[arg-type]
    assert not table.difference()
    assert not table.put_back()


CHANGES: Final[dict[str, tuple[str, str, bool]]] = {
    "flushed": ("nft flush ruleset", GONE, True),
    "deleted": ("nft delete table inet egressproxy", GONE, True),
    "a rule more": ("nft insert rule inet egressproxy judge accept", CHANGED, False),
    "a chain emptied": ("nft flush chain inet egressproxy pass_1", CHANGED, False),
    "a policy": ("nft chain inet egressproxy forward { policy accept ; }", CHANGED, False),
    "a chain more": ("nft add chain inet egressproxy mine", CHANGED, False),
    "a chain less": ("nft delete chain inet egressproxy postrouting", CHANGED, True),
    "a map more": ("nft add map inet egressproxy m { type mark : mark ; }", CHANGED, True),
    "a range more": ("nft add element inet egressproxy SET { 99.0.0.0/8 }", ELEMENTS, False),
    "a range less": ("nft delete element inet egressproxy SET { 30.0.1.1 }", ELEMENTS, False),
    "another range": (
        "nft delete element inet egressproxy SET { 30.0.1.1 } ;"
        " add element inet egressproxy SET { 99.0.0.0/8 }",
        ELEMENTS,
        False,
    ),
    "no range": ("nft flush set inet egressproxy SET", ELEMENTS, False),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_seen_and_put_back(what: str, held: HeldTable, namespace: Namespace) -> None:
    command, seen, is_new = CHANGES[what]
    namespace.run(*command.replace("SET", range_set()).split())
    assert held.difference(elements=True) == seen
    assert held.put_back() is is_new
    assert not held.difference(elements=True)
    names = Nft().timed_elements()[NTP]
    assert [address for address, _ in names] == ([] if is_new else ["30.9.0.1"])
    text = namespace.run("nft", "list", "table", "inet", "egressproxy")
    assert "policy drop" in text
    assert "mine" not in text


def test_a_table_that_is_refused_changes_nothing(held: HeldTable) -> None:
    def bad(_: TableState | None) -> str:
        return "add table inet egressproxy\nadd rule inet egressproxy nowhere accept\n"

    for attempt in (held.check, held.put):
        with pytest.raises(KernelError):
            attempt(bad)
    assert not held.difference(elements=True)


def test_what_is_insisted_on_is_put_later(held: HeldTable) -> None:
    """It failed once: until it is in place, something is amiss."""
    failures = [KernelError("not now")]

    def later(existing: TableState | None) -> str:
        if failures:
            raise failures.pop()
        return script_of(*RULES[:1])(existing)

    with pytest.raises(KernelError, match="not now"):
        held.insist(later)
    assert held.difference() == CHANGED
    assert not held.put_back()
    assert not held.difference(elements=True)
    state = Nft().table_state()
    assert state is not None
    assert rule_counter("rules/many") in state.counters
    assert rule_counter("rules/ntp") not in state.counters


class Blind(Nft):
    """Cannot look when it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 1000

    def table_state(self, *, elements: bool = False) -> TableState | None:
        self.looks -= 1
        if self.looks < 0:
            raise KernelError("nft did not end within 30 s")
        return super().table_state(elements=elements)


def test_what_was_held_is_put_back_where_nobody_knows_what_was_put(
    namespace: Namespace, tmp_path: Path
) -> None:
    """Else the kernel would stay between two policies, and all would seem well."""
    nft = Blind()
    table = HeldTable(nft, tmp_path / "state.json")
    table.put(WHOLE)
    nft.looks = 1
    with pytest.raises(KernelError, match="did not end"):
        table.put(script_of(*RULES[:1]))
    nft.looks = 1000
    assert table.difference() == CHANGED
    assert not table.put_back()
    state = Nft().table_state()
    assert state is not None
    assert rule_counter("rules/ntp") in state.counters


def test_a_table_that_cannot_be_remembered_is_held(held: HeldTable, tmp_path: Path) -> None:
    (tmp_path / "state.json").unlink()
    (tmp_path / "state.json").mkdir()
    held.put(script_of(*RULES[:1]))
    assert "state.json" in held.unremembered
    assert not held.difference(elements=True)
    (tmp_path / "state.json").rmdir()
    held.put(script_of(*RULES[1:]))
    assert not held.unremembered


def test_another_table_is_put_over_it_with_what_it_keeps(held: HeldTable) -> None:
    held.put(script_of(*RULES[1:]))
    assert [address for address, _ in Nft().timed_elements()[NTP]] == ["30.9.0.1"]
    assert not held.difference(elements=True)
