"""The key table: exact, bounded, the same from another mapping."""

from __future__ import annotations

import mmap
import os
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.policy import table as module
from egressproxy.policy.table import (
    MAX_KEY_OCTETS,
    MAX_PROBES,
    Table,
    TableTooLargeError,
    build_table,
)


def build(entries: dict[bytes, int]) -> Table:
    buffer, layout = build_table(list(entries), entries.values())
    return Table(buffer, layout)


@given(
    st.dictionaries(st.binary(max_size=40), st.integers(0, 2**32 - 1)),
    st.lists(st.binary(max_size=40)),
)
def test_it_is_a_dict(entries: dict[bytes, int], others: list[bytes]) -> None:
    table = build(entries)
    for key in [*entries, *others]:
        assert table.find(key) == entries.get(key)


def test_empty() -> None:
    assert build({}).find(b"") is None
    assert build({}).find(b"a") is None


def test_one_and_its_neighbours() -> None:
    table = build({b"abc": 7})
    assert table.find(b"abc") == 7
    for near in (b"ab", b"abcd", b"abd", b"", b"\x03\0abc", b"abc\x07"):
        assert table.find(near) is None


def _step(index: int) -> int:
    for _ in range(8):
        index = (index >> 1) ^ (0xEDB88320 if index & 1 else 0)
    return index


STEPS = [_step(index) for index in range(256)]
BY_TOP = {value >> 24: index for index, value in enumerate(STEPS)}


def of_one_crc(count: int, crc: int = 0xDEADBEEF) -> list[bytes]:
    """Keys of one CRC-32: twelve octets each, and the four that bring the CRC to its target."""
    keys = []
    for number in range(count):
        head = b"%012d" % number
        indexes, wanted = [], crc ^ 0xFFFFFFFF
        for _ in range(4):  # backwards: which steps end there
            indexes.append(BY_TOP[wanted >> 24])
            wanted = (wanted ^ STEPS[indexes[-1]]) << 8
        tail, state = bytearray(), zlib.crc32(head) ^ 0xFFFFFFFF
        for index in reversed(indexes):  # forwards: which octets take them
            tail.append((state ^ index) & 0xFF)
            state = (state >> 8) ^ STEPS[index]
        keys.append(head + bytes(tail))
    return keys


def test_keys_of_one_crc_all_are_found_and_nothing_else_is() -> None:
    keys = of_one_crc(1000)
    assert {zlib.crc32(key) for key in keys} == {0xDEADBEEF}
    present, absent = keys[::2], keys[1::2]
    table = build({key: i for i, key in enumerate(present)})
    assert table.layout.extra_slots >= 2 * (len(present) - MAX_PROBES)
    assert [table.find(key) for key in present] == list(range(len(present)))
    assert all(table.find(key) is None for key in absent)


def test_exactly_as_many_collisions_as_probes_and_one_more() -> None:
    for count in (MAX_PROBES - 1, MAX_PROBES, MAX_PROBES + 1):
        keys = of_one_crc(count + 1)
        table = build({key: i for i, key in enumerate(keys[:count])})
        assert [table.find(key) for key in keys[:count]] == list(range(count))
        assert table.find(keys[count]) is None
        assert bool(table.layout.extra_slots) is (count > MAX_PROBES)


def test_a_search_ends_after_a_bounded_number_of_slots() -> None:
    table = build(dict.fromkeys(of_one_crc(500), 1))
    seen = 0

    class Counting:
        def __init__(self, slots: memoryview) -> None:
            self.slots = slots

        def __getitem__(self, index: int) -> int:
            nonlocal seen
            seen += 1
            return int(self.slots[index])

    table._slots = Counting(table._slots)  # type: ignore[assignment]
    assert table.find(of_one_crc(501)[-1]) is None
    assert seen <= MAX_PROBES + 1


def test_the_longest_key_and_a_longer_one() -> None:
    longest = b"x" * MAX_KEY_OCTETS
    table = build({longest: 1})
    assert table.find(longest) == 1
    assert table.find(longest + b"x") is None


def test_200_000_names() -> None:
    numbers = list(range(200_000))
    random.Random(7).shuffle(numbers)
    entries = {b"=host-%d.example%d.com" % (n, n % 977): n for n in numbers}
    table = build(entries)
    assert all(table.find(key) == value for key, value in entries.items())
    assert all(table.find(key + b".") is None for key in list(entries)[:20_000])
    assert len(entries) <= table.layout.slots // 2


def test_attached_by_descriptor() -> None:
    buffer, layout = build_table([b"a", b"b"], [1, 2])
    fd = os.memfd_create("test")
    try:
        os.write(fd, buffer)
        table = Table(mmap.mmap(fd, layout.size, access=mmap.ACCESS_READ), layout)
    finally:
        os.close(fd)
    assert (table.find(b"a"), table.find(b"b"), table.find(b"c")) == (1, 2, None)


def test_a_buffer_that_is_too_short() -> None:
    buffer, layout = build_table([b"a"], [1])
    with pytest.raises(ValueError, match="octets in a buffer of"):
        Table(buffer[:-1], layout)


def test_values_must_pair_with_keys() -> None:
    with pytest.raises(ValueError, match="zip"):
        build_table([b"a", b"b"], [1])


def test_more_than_offsets_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RECORDS_OCTETS", 100)
    with pytest.raises(TableTooLargeError, match="hint: split the lists"):
        build_table([b"%050d" % n for n in range(3)], [1, 2, 3])
