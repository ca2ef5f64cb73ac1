"""What things are called in the table, and what may stand in its text.

Nothing that a policy's author wrote stands in the text but as a hash, or in a comment after
``comment_of``. Counters and sets keep their names from one policy to the next, so that a reload
leaves what did not change as it is: counts go on, and large sets are not loaded again.
"""

from __future__ import annotations

import re
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from egressproxy.names import DnsName

MAX_COMMENT: Final = 120
"""Octets; nft takes 128 with the final zero (NFTNL_UDATA_COMMENT_MAXLEN)."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9 _.,:;/#@=+()-]")


class LogWord(StrEnum):
    """``log prefix`` of the table's log rules: what became of the packet."""

    DENY = "deny"
    """Dropped: a rule denied it, or none allowed it."""
    AUDIT = "audit"
    """Forwarded, and enforcing would have dropped it."""
    QUIC = "quic"
    """Refused with ICMP port unreachable."""
    FORBIDDEN = "forbidden"
    """Dropped whatever the policy says: no flow may lead to such an address (``NEVER_DIALLED``)."""
    INPUT = "input"
    """Dropped: it was for the gateway itself."""


class Outcome(StrEnum):
    """Named counters beside those of rules; each judged packet counts on exactly one counter.

    Judged are the packets that open a connection (each datagram, until it is answered), not those
    of connections that are open.
    """

    PROXIED = "proxied"
    """Taken to the proxy."""
    DEFAULT_DENY = "default_deny"
    """No rule matched: dropped."""
    WOULD_DENY = "would_deny"
    """No rule matched, and audit let it pass."""
    QUIC_REFUSED = "quic_refused"
    FORBIDDEN = "forbidden_address"
    NO_CLIENT = "no_client"
    """To be forwarded for a source that is not served, or one of the gateway's own addresses."""
    INVALID = "invalid"
    """To be forwarded, and belongs to no connection that the kernel knows and opens none."""
    UNJUDGED = "unjudged"
    """To be forwarded, of a connection that was open before this table was."""
    INPUT = "input"
    """To the gateway itself and not meant for it."""


def rule_counter(rule_id: str) -> str:
    """The name of a rule's counter."""
    return f"r_{_hash(rule_id)}"


def name_sets(name: DnsName) -> tuple[str, str]:
    """The names of the sets of a name's IPv4 and IPv6 addresses."""
    digest = _hash(name)
    return f"n4_{digest}", f"n6_{digest}"


def range_set(version: int, elements: str) -> str:
    """The name of a set of address ranges, by what is in it."""
    return f"s{version}_{_hash(elements)}"


def comment_of(text: str) -> str:
    """A comment with its quotes; anything that nft or a terminal could read otherwise is ``_``."""
    return f'"{_UNSAFE.sub("_", text)[:MAX_COMMENT]}"'


def _hash(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
