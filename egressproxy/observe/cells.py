"""What is counted, and which cell of a row counts it: ``LAYOUT``, for all who read or write."""

from __future__ import annotations

import zlib
from enum import StrEnum
from itertools import product
from typing import Final, TypeAlias, TypeVar

from egressproxy.observe.record import Plane
from egressproxy.policy.verdict import Action, Reason

Bounds: TypeAlias = tuple[float, ...]
"""The upper ends of a histogram's buckets, ascending."""
_Key = TypeVar("_Key")
NANOSECONDS: Final = 1_000_000_000


class LookupOutcome(StrEnum):
    """What the resolver's cache had to say."""

    HIT = "hit"
    MISS = "miss"
    NEGATIVE = "negative"
    """A remembered failure."""
    ERROR = "error"
    """A question that brought no address."""


class ReloadOutcome(StrEnum):
    """What became of a reload."""

    OK = "ok"
    REFUSED = "refused"
    """The policy has problems, or would newly deny too much; the old one stays."""
    FAILED = "failed"
    """The policy could not be taken: by a worker, or because nobody could tell what it denies."""


class Latency(StrEnum):
    """The measured stretches of a flow's life."""

    DECIDE = "decide"
    RESOLVE = "resolve"
    DIAL = "dial"
    FIRST_BYTE = "first_byte"


class KernelCount(StrEnum):
    """What is counted of the packets that the kernel's rules logged, and of its sets."""

    PACKETS = "packets"
    """Read and made records."""
    LOST = "lost"
    """Logged by the kernel and dropped before they were read."""
    OVERRUNS = "overruns"
    """Times the kernel found the receive buffer full."""
    MALFORMED = "malformed"
    """Messages that could not be read."""
    DISAGREEMENTS = "disagreements"
    """Refused by the kernel where the policy would allow."""
    REFUSED_ADDRESSES = "refused_addresses"
    """Answers that the address guard kept out of a set."""
    SET_ERRORS = "set_errors"
    """Changes of a set that failed."""
    REPAIRS = "repairs"
    """Times the firewall was put back after somebody changed it."""
    REVOKED = "revoked"
    """Forwarded connections that were ended because a policy no longer allows them."""


class ReviewCount(StrEnum):
    """What is counted of the records on their way into the review store."""

    STORED = "stored"
    DROPPED = "dropped"
    """The recorder could not take them: it was behind, or its store failed for too long."""
    OVERFLOWED = "overflowed"
    """Stored without their names: the source had too many in that hour."""
    UNREADABLE = "unreadable"
    """Lines that are no record."""
    ERRORS = "errors"
    """Times the store failed; what was to be stored is tried again."""
    NEW_NAMES = "new_names"
    """Names that the store had never seen."""
    RESTARTS = "restarts"
    """Recorders that ended and were replaced."""


class ExportKind(StrEnum):
    """The forms in which records leave for others."""

    AZURE = "azure"
    """Files with the rows of Azure Firewall's tables."""
    SYSLOG = "syslog"
    """RFC 5424 messages."""
    OTLP = "otlp"
    """OpenTelemetry logs."""


class NameCount(StrEnum):
    """The sizes that are looked at, not added up."""

    UNRESOLVED = "unresolved"
    """Names of network rules without an answer now."""
    BOOK_NAMES = "book_names"
    """Names in the address book."""
    BOOK_PAIRS = "book_pairs"
    """Pairs of name and address in it."""


DECIDE_BOUNDS_S: Final[Bounds] = (1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 1e-3, 1e-2)
NETWORK_BOUNDS_S: Final[Bounds] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15
)  # fmt: skip
HELLO_BOUNDS_BYTES: Final = (256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384, 65536)

LATENCY_BOUNDS_S: Final[dict[Latency, Bounds]] = {
    Latency.DECIDE: DECIDE_BOUNDS_S,
    Latency.RESOLVE: NETWORK_BOUNDS_S,
    Latency.DIAL: NETWORK_BOUNDS_S,
    Latency.FIRST_BYTE: NETWORK_BOUNDS_S,
}


class Layout:
    """Which cell of a row is what. ``flows`` maps (plane, action, reason) to its cell."""

    def __init__(self) -> None:
        self.size = 0
        self.flows = self._keys(tuple(product(Plane, Action, Reason)))
        self.would_deny = self._keys(tuple(Plane))
        self.active = self._keys(tuple(Plane))
        self.lookups = self._keys(tuple(LookupOutcome))
        self.bytes_up = self._cells(1)
        self.bytes_down = self._cells(1)
        self.log_dropped = self._cells(1)
        self.log_folded = self._cells(1)
        self.log_errors = self._cells(1)
        self.longest_stall_ns = self._cells(1)
        # What only the supervisor's row has: the kernel's firewall.
        self.kernel = self._keys(tuple(KernelCount))
        self.names = self._keys(tuple(NameCount))
        # Of the recorder's row, but for what was dropped before it and its restarts.
        self.review = self._keys(tuple(ReviewCount))
        self.export_lost = self._keys(tuple(ExportKind))
        # A histogram is a cell a bucket, one for what is above the last bound, and the sum.
        self.hello = self._cells(len(HELLO_BOUNDS_BYTES) + 2)
        self.latencies = {
            latency: self._cells(len(bounds) + 2) for latency, bounds in LATENCY_BOUNDS_S.items()
        }
        self.checksum = zlib.crc32(repr(sorted(vars(self).items())).encode())

    def _cells(self, count: int) -> int:
        first, self.size = self.size, self.size + count
        return first

    def _keys(self, keys: tuple[_Key, ...]) -> dict[_Key, int]:
        return {key: self._cells(1) for key in keys}


LAYOUT: Final = Layout()
