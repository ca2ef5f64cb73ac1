"""Address texts to bytes, as the matcher and ``explain`` read them."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

_MAPPED: Final = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2


def pack_address(text: str) -> bytes | None:
    """Four or sixteen octets, IPv4-mapped addresses unwrapped and zones cut off; ``None`` else."""
    try:
        if ":" not in text:
            return inet_pton(AF_INET, text)
        packed = inet_pton(AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed
