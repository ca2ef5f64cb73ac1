"""What sources did, from subjects and from a store."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.record import FlowRecord, Plane
from egressproxy.policy.verdict import Action, Reason
from egressproxy.review.behaviour import (
    MANY_ADDRESSES,
    MANY_NAMES,
    MAX_NAMES,
    MAX_SOURCES,
    MAX_WANTED_BY,
    SECOND_TRY_S,
    TUNNEL_NAMES,
    Behaviour,
    behaviour_of,
    observe_behaviour,
)
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import SubjectCount
from egressproxy.review.writer import Writer
from tests.policy.building import NOON
from tests.review.subjects import allowed, counted, subject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.review.store import Store

SOURCE: Final = "10.240.0.4"
HEX: Final = [f"{n:016x}" for n in random.Random(4).sample(range(1 << 60), MANY_NAMES)]


def seen(name: str | None, **more: object) -> SubjectCount:
    return counted(subject(name, **more))


def at(one: SubjectCount, moment: float) -> SubjectCount:
    return replace(one, first_at=moment, last_at=moment)


def addresses(count: int) -> list[SubjectCount]:
    return [seen(None, dst_ip=f"20.1.{n // 250}.{n % 250}") for n in range(count)]


def test_nobody_is_known_to_have_done_anything() -> None:
    assert Behaviour() == behaviour_of([])
    assert Behaviour().tunnel_of(SOURCE, "a.example") is None


# Many


def test_many_names() -> None:
    names = [seen(f"site{n}.example") for n in range(MANY_NAMES)]
    assert behaviour_of(names).names == {SOURCE: MANY_NAMES}
    assert behaviour_of(names[1:]).names == {}


def test_a_name_on_several_ports_is_one() -> None:
    assert behaviour_of([seen("a.example", dst_port=n) for n in range(MANY_NAMES)]).names == {}


NOT_COUNTED = {
    "the catalog has a word on it": {"note": "harmless"},
    "allowed": {"action": Action.ALLOW},
    "an overflow": {"is_overflow": True},
}


@pytest.mark.parametrize("more", NOT_COUNTED.values(), ids=NOT_COUNTED)
def test_names_that_are_not_counted(more: dict[str, object]) -> None:
    assert behaviour_of([seen(f"{name}.example", **more) for name in HEX]) == Behaviour()


def test_what_audit_let_pass_is_counted() -> None:
    names = [counted(allowed(f"site{n}.example", would_deny=True)) for n in range(MANY_NAMES)]
    assert behaviour_of(names).names == {SOURCE: MANY_NAMES}


def test_each_source_for_itself() -> None:
    half = MANY_NAMES // 2
    names = [seen(f"site{n}.example", src_ip=f"10.0.0.{n // half}") for n in range(MANY_NAMES)]
    assert behaviour_of(names).names == {}


def by_several(names: list[str], sources: int) -> list[SubjectCount]:
    return [seen(name, src_ip=f"10.0.0.{n}") for name in names for n in range(sources)]


def test_names_that_many_want_are_nobodys_own() -> None:
    names = [f"{text}.evil.example" for text in HEX]
    few = behaviour_of(by_several(names, MAX_WANTED_BY))
    assert len(few.names) == len(few.tunnels) == MAX_WANTED_BY
    assert behaviour_of(by_several(names, MAX_WANTED_BY + 1)) == Behaviour()


def test_a_scan() -> None:
    assert behaviour_of(addresses(MANY_ADDRESSES)).addresses == {SOURCE: MANY_ADDRESSES}
    assert behaviour_of(addresses(MANY_ADDRESSES - 1)).addresses == {}


# Tunnels


def tunnels(names: Iterable[str]) -> dict[str, int]:
    return {suffix: n for (_, suffix), n in behaviour_of(map(seen, names)).tunnels.items()}


def test_data_in_names_below_one_suffix() -> None:
    found = behaviour_of([seen(f"{text}.t.evil.example") for text in HEX])
    assert found.tunnel_of(SOURCE, f"{HEX[0]}.t.evil.example") == ("t.evil.example", len(HEX))
    assert found.tunnel_of(SOURCE, "other.example") is None
    assert found.tunnel_of("10.9.9.9", f"{HEX[0]}.t.evil.example") is None


SHAPES = {
    "several labels of data": (
        [f"{a}.{b}.evil.example" for a, b in pairwise(HEX)],
        True,
    ),
    "long words": ([f"{'word' * 10}{n}.evil.example" for n in range(60)], True),
    "words": ([f"www{n}.evil.example" for n in range(60)], False),
    "short codes": ([f"{n:06x}.evil.example" for n in range(60)], False),
    "below many owners": ([f"{text}.site{n}.example" for n, text in enumerate(HEX[:60])], False),
    "storage accounts": ([f"{text}.blob.core.windows.net" for text in HEX], False),
    "below one of them": ([f"{text}.mine.blob.core.windows.net" for text in HEX], True),
    "below a public suffix": ([f"{text}.co.uk" for text in HEX], False),
    "top-level domains": ([f"{text}.com" for text in HEX], False),
}


@pytest.mark.parametrize(("names", "is_one"), SHAPES.values(), ids=SHAPES)
def test_shapes_of_tunnels(names: list[str], is_one: bool) -> None:
    assert bool(tunnels(names)) is is_one


def test_so_many_names_and_not_fewer() -> None:
    names = [f"{text}.evil.example" for text in HEX]
    assert tunnels(names[:TUNNEL_NAMES]) == {"evil.example": TUNNEL_NAMES}
    assert tunnels(names[: TUNNEL_NAMES - 1]) == {}


# A second try

NAMED: Final = at(seen("refused.example", dst_ip="20.5.5.5"), NOON)
BY_DNS: Final = at(seen("refused.example", dst_ip=None, reason=Reason.DNS_REFUSED), NOON)
TRIES = {
    "the address of a refused name": (NAMED, "20.5.5.5", NOON + 1, True),
    "in the same second": (NAMED, "20.5.5.5", NOON, True),
    "before the name": (NAMED, "20.5.5.5", NOON - 1, False),
    "another address": (NAMED, "20.5.5.6", NOON + 1, False),
    "after the resolver refused": (BY_DNS, "20.5.5.6", NOON + SECOND_TRY_S, True),
    "long after the resolver refused": (BY_DNS, "20.5.5.6", NOON + SECOND_TRY_S + 1, False),
    "before the resolver refused": (BY_DNS, "20.5.5.6", NOON - 1, False),
    "a private address": (BY_DNS, "10.5.5.6", NOON + 1, False),
}


@pytest.mark.parametrize(("refused", "address", "moment", "is_one"), TRIES.values(), ids=TRIES)
def test_tries_by_address(refused: SubjectCount, address: str, moment: float, is_one: bool) -> None:
    tried = at(seen(None, dst_ip=address, reason=Reason.NO_SNI), moment)
    expected = {(SOURCE, address): "refused.example"} if is_one else {}
    assert behaviour_of([tried, refused]).second_tries == expected
    assert behaviour_of([refused, tried]).second_tries == expected


# Bounds and odd values


def test_names_of_a_source_are_bounded() -> None:
    assert behaviour_of(seen(f"n{n}.example") for n in range(MAX_NAMES + 5)).names == {
        SOURCE: MAX_NAMES
    }


def test_sources_are_bounded() -> None:
    late = [seen(f"s{n}.example", src_ip="10.9.9.9") for n in range(MANY_NAMES)]
    early = [seen("a.example", src_ip=f"10.1.{n // 250}.{n % 250}") for n in range(MAX_SOURCES)]
    assert behaviour_of([*early, *late]).names == {}


TEXTS: Final = st.none() | st.text(max_size=30) | st.sampled_from(["a.b.c", "..", "20.1.1.1"])


@given(st.lists(st.builds(seen, TEXTS, dst_ip=TEXTS, src_ip=st.sampled_from(["a", "b"]))))
def test_any_names_and_addresses_in_any_order(counts: list[SubjectCount]) -> None:
    assert behaviour_of(counts) == behaviour_of(list(reversed(counts)))


# From a store


def record(name: str | None, moment: float, **more: Any) -> FlowRecord:
    kept = FlowRecord(
        time=moment,
        flow_id="f",
        src_port=1,
        action=Action.DENY,
        reason=Reason.DEFAULT_DENY,
        plane=Plane.TRANSPARENT,
        protocol="tls",
        src_ip=SOURCE,
        dst_port=443,
        dst_ip="20.5.5.5",
        name=name,
    )
    return kept._replace(**more)


def test_of_a_store(store: Store) -> None:
    calm = [record("a.example", NOON, src_ip=f"10.0.0.{n}") for n in range(5)]
    tunnel = [record(f"{text}.evil.example", NOON + n) for n, text in enumerate(HEX[:30])]
    tried = [
        record("refused.example", NOON, src_ip="10.0.0.7", dst_ip="20.7.7.7"),
        record(None, NOON + 5, src_ip="10.0.0.7", dst_ip="20.7.7.7", reason=Reason.NO_SNI),
    ]
    writer = Writer(store, gateway="hub", bounds=Bounds())
    writer.add([*calm, *tunnel, *tried])
    found = observe_behaviour(store, NOON - 3600, NOON + 3600)
    assert found.tunnels == {(SOURCE, "evil.example"): 30}
    assert found.second_tries == {("10.0.0.7", "20.7.7.7"): "refused.example"}
    assert (found.names, found.addresses) == ({}, {})
    assert observe_behaviour(store, NOON + 7200, None) == Behaviour()
    assert observe_behaviour(store, None, NOON - 7200) == Behaviour()


def test_of_an_empty_store(store: Store) -> None:
    assert observe_behaviour(store, None, None) == Behaviour()


def test_the_page_has_the_thresholds() -> None:
    page = (Path(__file__).parents[2] / "docs" / "review.md").read_text()
    assert f"one of {TUNNEL_NAMES} or more long names" in page
    assert f"{MANY_ADDRESSES} or more addresses of one client" in page
    assert f"{MANY_NAMES} or more names of one client" in page
    assert MAX_WANTED_BY == 3, "at most two others"
