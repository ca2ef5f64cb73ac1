"""The whole text: as files for people to read, and as transactions that the kernel takes."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.errors import KernelError
from egressproxy.kernel.firewall_options import FirewallOptions, Intercept, Snat
from egressproxy.kernel.kernel_policy import KernelPolicy, kernel_policy
from egressproxy.kernel.nft_apply import Counter, Nft, SetState, TableState
from egressproxy.kernel.nft_names import name_sets, rule_counter
from egressproxy.kernel.nft_script import table_script, transition_script
from egressproxy.names import DnsName
from egressproxy.policy.load import load_policy
from lab.namespaces import namespaces
from tests.policy.building import DENY, NOON, name_list, networks, policy, rule
from tests.policy.tag_file import real_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.namespaces import Namespace

FOLDER: Final = Path(__file__).parents[2] / "policies"
NTP: Final = DnsName("ntp.example")
OPTIONS: Final = FirewallOptions(redirect_port=15001)
EVERYTHING: Final = FirewallOptions(
    clients=networks("10.240.0.0/16", "fd00:240::/64"),
    management=networks("10.0.0.0/28"),
    explicit_clients=networks("10.241.0.0/16"),
    ssh_ports=(22, 2222),
    explicit_ports=(3128,),
    admin_port=9090,
    intercept=Intercept.TPROXY,
    tproxy_port=15002,
    snat=Snat.ALWAYS,
    nflog_group=7,
    log_rate=50,
)
MANY: Final = [f"20.{i}.0.0/16" for i in range(0, 40, 3)]
OLD: Final = policy(
    rule("rules/no", "20.9.9.0/24", ports="tcp:1-65535", action=DENY),
    rule("rules/many", *MANY, ports="tcp:1433 udp:53", sources="10.240.0.0/16"),
    rule("rules/ntp", NTP, ports="udp:123"),
    rule("rules/web", "www.example", ports="https http"),
)
NEW: Final = policy(
    rule("rules/few", *MANY[:3], ports="tcp:1433", audit=True),
    rule("rules/ntp", NTP, ports="udp:123"),
    rule("rules/web", "www.example", ports="https tls:8443"),
)


def of(name: str) -> KernelPolicy:
    """A ready policy at a fixed moment; its digest is tested elsewhere."""
    return replace(kernel_policy(load_policy(FOLDER / f"{name}.yaml"), NOON), digest="0" * 64)


# Golden


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_the_table_of_a_ready_policy_golden(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"{name}.nft", table_script(of(name), OPTIONS))


def test_the_table_with_every_option_golden(golden: Callable[[str, str], None]) -> None:
    golden("options.nft", table_script(kernel_policy(OLD, NOON), EVERYTHING))


def test_the_table_between_two_policies_golden(golden: Callable[[str, str], None]) -> None:
    old, new = kernel_policy(OLD, NOON), kernel_policy(NEW, NOON)
    golden("transition.nft", transition_script(old, new, OPTIONS, _state_of_old()))


def test_a_reload_golden(golden: Callable[[str, str], None]) -> None:
    golden("reload.nft", table_script(kernel_policy(NEW, NOON), OPTIONS, _state_of_old()))


def _state_of_old() -> TableState:
    """What the kernel has of ``OLD``, as far as the text depends on it."""
    text = table_script(kernel_policy(OLD, NOON), OPTIONS).splitlines()
    chains, sets, counters = (
        frozenset(line.split()[1] for line in text if line.startswith(f"\t{kind} "))
        for kind in ("chain", "set", "counter")
    )
    return TableState(
        chains=chains,
        sets=dict.fromkeys(sets, SetState("ipv4_addr", frozenset())),
        counters=dict.fromkeys(counters, Counter(0, 0)),
    )


# Nothing in it that a policy's author could choose


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_no_rule_changes_the_form_of_the_text(one: str, other: str) -> None:
    def shape(rule_id: str) -> list[str]:
        document = policy(rule(rule_id, "20.1.0.0/16", ports="tcp:1"))
        text = table_script(kernel_policy(document, NOON), OPTIONS)
        text = text.replace(rule_counter(rule_id), "COUNTER")
        return [line.partition(" comment ")[0] for line in text.splitlines()]

    assert shape(one) == shape(other)


# The kernel takes it


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Namespace]:
    with namespaces(["hub"], tmp_path) as made:
        yield made["hub"]


class Table:
    """The table of one namespace."""

    def __init__(self, hub: Namespace) -> None:
        self.hub = hub
        self.nft = Nft()

    def load(self, script: str) -> None:
        with self.hub.entered():
            self.nft.apply(script)

    def state(self) -> TableState:
        with self.hub.entered():
            found = self.nft.table_state(elements=True)
        assert found is not None
        return found

    def handles(self) -> dict[str, int]:
        """Sets by name; a set that was made again has another handle."""
        listing = self.hub.run("nft", "--json", "list", "sets")
        sets = (each["set"] for each in json.loads(listing)["nftables"] if "set" in each)
        return {each["name"]: each["handle"] for each in sets}


@pytest.fixture
def table(hub: Namespace) -> Table:
    return Table(hub)


@pytest.mark.netns
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
@pytest.mark.parametrize("options", [OPTIONS, EVERYTHING, FirewallOptions()], ids=["a", "b", "c"])
def test_the_kernel_takes_a_ready_policy(table: Table, name: str, options: FirewallOptions) -> None:
    table.load(table_script(of(name), options))
    assert table.state().digest == "0" * 64


@pytest.mark.netns
def test_a_reload_touches_only_what_differs(table: Table) -> None:
    old, new = kernel_policy(OLD, NOON), kernel_policy(NEW, NOON)
    table.load(table_script(old, OPTIONS))
    v4, v6 = name_sets(NTP)
    with table.hub.entered():
        table.nft.add_elements(v4, [("20.1.2.3", 3600)])
    before, handles = table.state(), table.handles()
    (many,) = (name for name in before.sets if name.startswith("s4_"))
    assert before.sets[many].elements == len(MANY)

    table.load(table_script(old, OPTIONS, before))
    assert table.handles() == handles
    assert table.state() == before

    table.load(transition_script(old, new, OPTIONS, before))
    between = table.state()
    assert {many, v4, v6} <= between.sets.keys()
    assert between.counters.keys() >= {rule_counter("rules/many"), rule_counter("rules/few")}
    assert between.digest == ""

    table.load(table_script(new, OPTIONS, between))
    after = table.state()
    assert many not in after.sets  # nothing uses it any more
    assert after.sets[v4].elements == 1  # and here its addresses stay
    assert table.handles()[v4] == handles[v4]
    assert rule_counter("rules/many") not in after.counters
    assert after.chains == before.chains


@pytest.mark.netns
def test_counts_go_on_over_a_reload(table: Table) -> None:
    script = table_script(kernel_policy(OLD, NOON), OPTIONS)
    counter = rule_counter("rules/ntp")
    declared = f"counter {counter} {{"
    assert declared in script
    table.load(script.replace(declared, f"{declared} packets 7 bytes 9;"))
    for document in (OLD, NEW):
        table.load(table_script(kernel_policy(document, NOON), OPTIONS, table.state()))
        kept = table.state().counters[counter]
        assert (kept.packets, kept.bytes) == (7, 9)


@pytest.mark.netns
def test_a_set_that_was_changed_by_hand_is_filled_again(table: Table) -> None:
    old = kernel_policy(OLD, NOON)
    table.load(table_script(old, OPTIONS))
    (many,) = (name for name in table.state().sets if name.startswith("s4_"))
    table.hub.run("nft", f"add element inet egressproxy {many} {{ 99.0.0.0/8 }}")
    table.load(table_script(old, OPTIONS, table.state()))
    assert "99.0.0.0/8" not in table.hub.run("nft", "list", "set", "inet", "egressproxy", many)
    assert table.state().sets[many].elements == len(MANY)


@pytest.mark.netns
def test_what_is_not_as_it_was_told_changes_nothing(table: Table) -> None:
    old, new = kernel_policy(OLD, NOON), kernel_policy(NEW, NOON)
    table.load(table_script(new, OPTIONS))
    state = table.state()
    with pytest.raises(KernelError):
        table.load(table_script(old, OPTIONS, _state_of_old()))
    assert table.state() == state


@pytest.mark.netns
def test_other_options_are_another_table_in_one_step(table: Table) -> None:
    old = kernel_policy(OLD, NOON)
    table.load(table_script(old, OPTIONS))
    for options in (EVERYTHING, replace(OPTIONS, snat=Snat.NEVER), FirewallOptions(), OPTIONS):
        table.load(table_script(old, options, table.state()))
        reloaded = table.state()
        table.load(table_script(old, options))
        assert reloaded.chains == table.state().chains


# Sizes


@pytest.mark.netns
def test_the_largest_tags_of_microsofts_file(table: Table) -> None:
    tags = json.loads(real_file().read_text())["values"]
    largest = sorted(tags, key=lambda tag: -len(tag["properties"]["addressPrefixes"]))[:20]
    rules = [
        replace(
            rule(f"rules/{tag['name']}", ports=f"tcp:{1000 + number}"),
            networks=tuple(map(ip_network, tag["properties"]["addressPrefixes"])),
        )
        for number, tag in enumerate(largest)
    ]
    made = kernel_policy(policy(*rules), NOON)
    ranges = {v for each in made.rules for v in (each.destinations.v4, each.destinations.v6)}
    assert sum(map(len, ranges)) > 20_000
    table.load(table_script(made, OPTIONS))
    state = table.state()
    large = [len(each) for each in ranges if len(each) > 8]  # fewer stand in their rule
    assert sorted(each.elements for each in state.sets.values()) == sorted(large)
    text = table_script(made, OPTIONS, state)
    assert "elements" not in text
    table.load(text)
    assert table.state() == state


@pytest.mark.netns
def test_thousands_of_rules_and_names(table: Table) -> None:
    names = name_list(*(f"host-{i}.example" for i in range(500)))
    rules = [
        rule(f"rules/{i}", f"20.{i % 200}.{i // 200}.0/24", ports="tcp:22") for i in range(2000)
    ]
    made = kernel_policy(
        policy(*rules, rule("rules/names", ports="udp:5000", lists=(names,))), NOON
    )
    table.load(table_script(made, OPTIONS))
    assert len(table.state().sets) == 1000
