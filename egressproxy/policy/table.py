"""``Table``: a frozen hash table from byte keys to 32-bit values in one flat buffer.

The buffer can be plain memory or a mapping of a memfd that other processes share: attaching and
dropping it costs the same for one key and for ten million, which is what lets a worker take over a
list of a million names without a pause.

Open addressing by ``zlib.crc32`` at a load of at most one half. A slot holds the key's CRC and the
place of its record; a hit is always compared with the stored key, so there are no false positives.
No search is longer than ``MAX_PROBES``: keys that find no slot so near (a list can be made of
names of one CRC) go to a second table, addressed by BLAKE2b under a random key that who wrote the
list could not know.

Record: length of the key (2 octets), key, value (4 octets), all little-endian.
"""

from __future__ import annotations

import os
from array import array
from hashlib import blake2b
from itertools import accumulate, chain, repeat
from operator import add
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from zlib import crc32

from egressproxy.errors import EgressproxyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_PROBES: Final = 64
MAX_KEY_OCTETS: Final = 1023
MAX_RECORDS_OCTETS: Final = (1 << 32) - 1
_LENGTHS: Final = tuple(n.to_bytes(2, "little") for n in range(MAX_KEY_OCTETS + 1))
_VALUE: Final = Struct("<I")
_OVERHEAD: Final = 6
_SLOT: Final = 8
_CRC: Final = 0xFFFFFFFF


class Sliceable(Protocol):
    """What a table lies in: ``bytes`` or ``mmap``; a slice of it is ``bytes``."""

    def __getitem__(self, index: slice, /) -> bytes:
        """Octets from ``start`` to ``stop``."""

    def __len__(self) -> int:
        """Octets in all."""


class TableTooLargeError(EgressproxyError):
    """More than 4 GiB of keys."""

    code = "table_too_large"


class TableLayout(NamedTuple):
    """Where in a buffer the parts of a table are; octets from the buffer's start.

    ``slots`` and ``extra_slots`` are powers of two, ``extra_slots`` may be 0. The slots are
    at its start; both slot arrays begin on an 8-octet boundary.
    """

    slots: int
    extra_at: int
    extra_slots: int
    records_at: int
    key: bytes
    size: int


def build_table(keys: Sequence[bytes], values: Iterable[int]) -> tuple[bytes, TableLayout]:
    """Lay out a table for a buffer of its own.

    Args:
        keys: distinct, at most ``MAX_KEY_OCTETS`` each.
        values: one for each key, 32 bits without sign.

    Raises:
        TableTooLargeError: the records do not fit 32-bit offsets.
    """
    lengths = list(map(_LENGTHS.__getitem__, map(len, keys)))
    records = b"".join(
        chain.from_iterable(zip(lengths, keys, map(_VALUE.pack, values), strict=True))
    )
    if len(records) > MAX_RECORDS_OCTETS - 1:
        raise TableTooLargeError(f"{len(keys)} names do not fit a table", hint="split the lists")
    sizes = map(add, map(len, keys), repeat(_OVERHEAD))
    places = list(accumulate(sizes, initial=1))
    slots, misfits = _place(keys, places)
    seed = os.urandom(16) if misfits else b""
    extra = _place_extra([(keys[i], places[i]) for i in misfits], seed)
    buffer = b"".join((slots, extra, b"\0", records))
    extra_at = len(slots) * _SLOT
    records_at = extra_at + len(extra) * _SLOT
    return buffer, TableLayout(
        slots=len(slots),
        extra_at=extra_at,
        extra_slots=len(extra),
        records_at=records_at,
        key=seed,
        size=len(buffer),
    )


def _empty_slots(keys: int) -> array[int]:
    return array("Q", bytes(_SLOT << max(2 * keys - 1, 1).bit_length()))


def _place(keys: Sequence[bytes], places: Sequence[int]) -> tuple[array[int], list[int]]:
    """Slots of the first table, and the indexes of keys that found none near enough."""
    slots = _empty_slots(len(keys))
    mask = len(slots) - 1
    misfits = []
    for index, (crc, place) in enumerate(zip(map(crc32, keys), places, strict=False)):
        at = crc & mask
        if slots[at]:
            for _ in range(MAX_PROBES - 1):
                at = (at + 1) & mask
                if not slots[at]:
                    break
            else:
                misfits.append(index)
                continue
        slots[at] = place << 32 | crc
    return slots, misfits


def _place_extra(misfits: Sequence[tuple[bytes, int]], seed: bytes) -> array[int]:
    if not misfits:
        return array("Q")
    slots = _empty_slots(len(misfits))
    mask = len(slots) - 1
    for key, place in misfits:
        at = _keyed_hash(key, seed) & mask
        while slots[at]:
            at = (at + 1) & mask
        slots[at] = place << 32
    return slots


def _keyed_hash(key: bytes, seed: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8, key=seed).digest(), "little")


class Table:
    """A table in a buffer, which it keeps alive; looking up allocates one key at most.

    Raises:
        ValueError: the layout does not fit the buffer.
    """

    __slots__ = ("_extra", "_extra_mask", "_mask", "_records_at", "_slots", "buffer", "layout")

    def __init__(self, buffer: Sliceable, layout: TableLayout) -> None:
        if len(buffer) < layout.size:
            raise ValueError(f"a table of {layout.size} octets in a buffer of {len(buffer)}")
        view = memoryview(buffer)  # type: ignore[arg-type]  # bytes or mmap
        self.buffer = buffer
        self.layout = layout
        self._slots = view[: layout.slots * _SLOT].cast("Q")
        self._extra = view[layout.extra_at : layout.extra_at + layout.extra_slots * _SLOT].cast("Q")
        self._mask = layout.slots - 1
        self._extra_mask = layout.extra_slots - 1
        self._records_at = layout.records_at

    def find(self, key: bytes) -> int | None:
        """The key's value, or ``None``; never longer than ``MAX_PROBES`` comparisons."""
        slots = self._slots
        crc = crc32(key)
        at = crc & self._mask
        if not slots[at]:  # most searches for what is not there end here
            return None
        for _ in range(MAX_PROBES):
            slot = slots[at]
            if not slot:
                return None
            if slot & _CRC == crc:
                value = self._read(slot >> 32, key)
                if value is not None:
                    return value
            at = (at + 1) & self._mask
        return self._find_extra(key) if self._extra_mask > 0 else None

    def _find_extra(self, key: bytes) -> int | None:
        slots = self._extra
        mask = self._extra_mask
        at = _keyed_hash(key, self.layout.key) & mask
        while slot := slots[at]:
            value = self._read(slot >> 32, key)
            if value is not None:
                return value
            at = (at + 1) & mask
        return None

    def _read(self, place: int, key: bytes) -> int | None:
        size = len(key)
        start = self._records_at + place
        end = start + 2 + size
        if size > MAX_KEY_OCTETS or self.buffer[start:end] != _LENGTHS[size] + key:
            return None
        return int.from_bytes(self.buffer[end : end + 4], "little")
