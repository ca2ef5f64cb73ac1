from __future__ import annotations

from egressproxy.kernel.kernel_policy import Ranges
from egressproxy.kernel.nft_apply import SetState
from egressproxy.kernel.nft_names import name_sets
from egressproxy.kernel.nft_sets import Sets, element
from egressproxy.kernel.nft_spans import spans_of
from egressproxy.names import DnsName
from tests.policy.building import networks

NAME = DnsName("ntp.example")
MANY = Ranges.of(networks(*(f"20.0.{i}.0/24" for i in range(0, 24, 2)), "2001:db8::1"))


def test_an_address_alone_is_written_without_its_length() -> None:
    assert [element(network) for network in networks("10.0.0.1", "10.0.0.0/31", "::1", "::/0")] == [
        "10.0.0.1",
        "10.0.0.0/31",
        "::1",
        "::/0",
    ]


def test_the_same_ranges_are_one_set_and_few_are_none() -> None:
    sets = Sets()
    matches = {sets.match(field, 4, MANY) for field in ("daddr", "saddr")}
    assert sets.match("daddr", 6, MANY) == "ip6 daddr 2001:db8::1"
    (name,) = sets.used()
    assert matches == {f"ip daddr @{name}", f"ip saddr @{name}"}
    assert sets.match("daddr", 4, MANY, negated=True) == f"ip daddr != @{name}"


def test_declarations_say_what_is_in_a_set() -> None:
    sets = Sets()
    sets.match("daddr", 4, MANY)
    sets.match_name(4, NAME)
    sets.match_name(6, NAME)
    (name,) = (each for each in sets.used() if each.startswith("s"))
    four, six = name_sets(NAME)
    assert list(sets.declarations(())) == [
        f"set {name} {{",
        "\ttype ipv4_addr; flags interval",
        '\tcomment "12 ranges"',
        "\telements = {",
        "\t\t20.0.0.0/24, 20.0.2.0/24, 20.0.4.0/24, 20.0.6.0/24, 20.0.8.0/24,",
        "\t\t20.0.10.0/24, 20.0.12.0/24, 20.0.14.0/24, 20.0.16.0/24, 20.0.18.0/24,",
        "\t\t20.0.20.0/24, 20.0.22.0/24,",
        "\t}",
        "}",
        f"set {four} {{",
        "\ttype ipv4_addr; flags timeout",
        '\tcomment "ntp.example"',
        "}",
        f"set {six} {{",
        "\ttype ipv6_addr; flags timeout",
        '\tcomment "ntp.example"',
        "}",
    ]
    assert list(sets.declarations(sets.used())) == []


def test_a_set_that_somebody_changed_is_known_by_its_addresses() -> None:
    """By their number where nft writes them in a form that is not known."""
    sets = Sets()
    sets.match("daddr", 4, MANY)
    (name,) = sets.used()
    flags = frozenset({"interval"})
    same, other = spans_of(MANY.v4), spans_of((*MANY.v4[1:], *networks("99.0.0.0/8")))
    for elements, spans, is_changed in (
        (12, same, False),
        (11, same, False),
        (12, other, True),
        (0, (), True),
        (-1, None, False),
        (12, None, False),
        (13, None, True),
        (0, None, True),
    ):
        state = SetState("ipv4_addr", flags, elements, spans)
        assert list(sets.changed({name: state})) == [name] * is_changed
    assert list(sets.changed({})) == []
