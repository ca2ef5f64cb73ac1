"""Request heads: signatures first, for the explicit plane; the reader follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egressproxy.wire.http_authority import Authority


@dataclass(frozen=True, slots=True)
class ConnectHead:
    """A CONNECT head; ``size`` is its length in bytes, what follows belongs to the tunnel.

    ``accept`` is the Accept field, for ``http_refusal``.
    """

    authority: Authority
    accept: bytes
    size: int


def is_connect(data: bytes | bytearray | memoryview) -> bool | None:
    """Whether a connection's first bytes begin a CONNECT; ``None`` while too few to tell."""
    raise NotImplementedError


def parse_connect(data: bytes | bytearray | memoryview, max_bytes: int) -> ConnectHead | None:
    """Read a CONNECT head from the first bytes of a connection; ``None`` is need more.

    Raises:
        HttpError: with the status to answer.
    """
    raise NotImplementedError
