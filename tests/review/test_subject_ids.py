from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.observe.record import FlowRecord, NameSource, Plane
from egressproxy.review import subject_ids
from egressproxy.review.bounds import Bounds, Budget
from egressproxy.review.subject_ids import SubjectIds, key_of
from tests.review.records import START, flow, traffic

if TYPE_CHECKING:
    from egressproxy.review.store import Store

NAMELESS = flow(name=None, name_source=NameSource.NONE)


def numbers(store: Store, ids: SubjectIds, records: list[FlowRecord]) -> list[int]:
    with store.begin() as connection:
        found = ids.resolve(connection, records, Budget(Bounds()))
    ids.keep()
    return [number for number, _ in found]


def test_the_same_number_for_the_same_subject_whoever_asks(store: Store) -> None:
    records = list(traffic(300))
    ids = SubjectIds("gw")
    first = numbers(store, ids, records)
    assert numbers(store, ids, records) == first
    assert numbers(store, SubjectIds("gw"), records) == first
    assert len(set(first)) == len({key_of(record) for record in records})
    assert not set(numbers(store, SubjectIds("other"), records)) & set(first)


def test_what_was_not_kept_is_found_again(store: Store) -> None:
    ids = SubjectIds("gw")
    with store.begin() as connection:
        ids.resolve(connection, [flow()], Budget(Bounds()))
        connection.rollback()
    with store.begin() as connection:
        ((number, is_overflow),) = ids.resolve(connection, [flow()], Budget(Bounds()))
    assert not is_overflow
    assert numbers(store, SubjectIds("gw"), [flow()]) == [number]


def test_what_is_forgotten_is_found_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_ids, "MAX_REMEMBERED", 3)
    ids = SubjectIds("gw")
    records = [flow(name=f"n{number}") for number in range(10)]
    first = numbers(store, ids, records)
    assert len(ids._known) == 3
    assert numbers(store, ids, records) == first


def test_many_at_once(store: Store) -> None:
    records = [flow(name=f"n{number}", src_ip=f"10.0.0.{number % 9}") for number in range(1300)]
    ids = SubjectIds("gw")
    assert numbers(store, ids, records) == numbers(store, SubjectIds("gw"), records)


def test_keys() -> None:
    assert key_of(flow(dst_ip="20.0.0.1")) == key_of(flow(dst_ip="20.0.0.2"))
    assert key_of(NAMELESS) != key_of(NAMELESS._replace(dst_ip="20.0.0.2"))
    assert key_of(NAMELESS) != key_of(flow())
    assert key_of(flow(time=START + 1, flow_id="x", count=9)) == key_of(flow())


@given(st.text(), st.text())
def test_a_digest_is_of_one_key_only(one: str, other: str) -> None:
    ids = SubjectIds("gw")
    keys = {key_of(flow(name=one, rule=other)), key_of(flow(name=other, rule=one))}
    assert len({ids._digest(key) for key in keys}) == len(keys)
    assert ids._digest(key_of(flow(name=one))) != SubjectIds("gw2")._digest(key_of(flow(name=one)))


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("10.240.7.9", "10.240.0.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:10.1.2.3", "10.1.0.0"),
        ("nonsense", ""),
    ],
)
def test_the_network_of_a_source(source: str, network: str) -> None:
    assert subject_ids._masked(flow(src_ip=source)).src_ip == network


def test_a_flood_of_packets_from_everywhere_hides_no_clients_names(store: Store) -> None:
    budget = Budget(Bounds(subjects_per_hour=20))
    flood = [
        NAMELESS._replace(plane=Plane.NETWORK, src_ip=f"10.9.{n}.1", protocol="udp")
        for n in range(100)
    ]
    with store.begin() as connection:
        found = SubjectIds("gw").resolve(connection, [*flood, flow(name="a.example")], budget)
    assert not found[-1][1], "its name is kept"
    assert sum(is_overflow for _, is_overflow in found) == 90
