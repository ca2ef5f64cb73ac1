"""Chunks of bytes in one sealed memfd: how a policy travels beside a control message.

Layout: each chunk behind its length, 4 octets little-endian. The file is sealed against change, so
that all workers can map the one copy.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LENGTH: Final = 4
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def pack_chunks(chunks: Iterable[bytes]) -> int:
    """A new memfd with the chunks; the caller closes it."""
    fd = os.memfd_create("egressproxy-bundle", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        for chunk in chunks:
            file.write(len(chunk).to_bytes(_LENGTH, "little"))
            file.write(chunk)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def unpack_chunks(fd: int) -> Iterator[bytes]:
    """The chunks in a descriptor of ``pack_chunks``, each copied out when it is asked for."""
    size = os.fstat(fd).st_size
    if not size:
        return
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as mapping:
        place = 0
        while place < size:
            start = place + _LENGTH
            place = start + int.from_bytes(mapping[place:start], "little")
            yield mapping[start:place]
