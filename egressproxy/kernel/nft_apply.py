"""The one table in the kernel: checked, applied in one transaction, read back, removed.

Everything goes through nft(8), in the network namespace of the calling thread. Nothing here knows
what a policy is: it gets a script and gives back what the kernel holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FAMILY: Final = "inet"
TABLE: Final = "egressproxy"
MIN_VERSION: Final = (1, 0, 6)
DIGEST_COMMENT: Final = "policy "
"""A rule whose comment is this and a hex digest says what the table was made of.

(The table's own comment is set once when it is made, and nft does not list it as JSON.)
"""


@dataclass(frozen=True, slots=True)
class Counter:
    """A named counter's exact counts since the table was made."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SetState:
    """A named set; ``elements`` is how many it has, -1 where they were not asked for."""

    type: str
    flags: frozenset[str]
    elements: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """What the kernel holds of our table.

    ``digest`` is that of the rule with ``DIGEST_COMMENT``, or empty. ``fingerprint`` is a SHA-256
    over chains, rules and sets without counts, handles and elements of timeout sets: while it is
    the same, nobody has changed the table by hand.
    """

    digest: str = ""
    fingerprint: str = ""
    chains: frozenset[str] = frozenset()
    sets: Mapping[str, SetState]
    counters: Mapping[str, Counter]


class Nft:
    """nft(8); every call blocks, so asyncio calls it in a thread.

    Args:
        binary: name or path; a name is looked for in PATH, /usr/sbin and /sbin.
        timeout_s: for one call.
    """

    def __init__(self, binary: str = "nft", *, timeout_s: float = 30.0) -> None:
        self.binary = binary
        self.timeout_s = timeout_s

    def version(self) -> tuple[int, ...]:
        """The program's version, as (1, 0, 6).

        Raises:
            KernelError: there is no nft, or what answers is none.
        """
        raise NotImplementedError

    def check(self, script: str) -> None:
        """Let the kernel say whether it would take the script; nothing changes.

        Raises:
            KernelError: it would not; with what nft said, and what to do.
        """
        raise NotImplementedError

    def apply(self, script: str) -> None:
        """Check, then apply in one transaction: all of it or nothing.

        Raises:
            KernelError: nothing was changed; with what nft said, and what to do.
        """
        raise NotImplementedError

    def table_state(self, *, elements: bool = False) -> TableState | None:
        """What the kernel holds; ``None`` where there is no table.

        Args:
            elements: count the elements of sets too (of thousands of prefixes: slower), and hold
                them against the fingerprint.

        Raises:
            KernelError: nft cannot be asked.
        """
        raise NotImplementedError

    def add_elements(self, name: str, elements: Iterable[tuple[str, int]]) -> None:
        """Put addresses into a set, each for so many seconds; one that is in there stays longer.

        One transaction, also for several thousand.

        Raises:
            KernelError: there is no such set, or an address is not of its type.
        """
        raise NotImplementedError

    def remove_elements(self, name: str, addresses: Iterable[str]) -> None:
        """Take addresses out of a set; one that is not in it is no error.

        Raises:
            KernelError: there is no such set, or an address is not of its type.
        """
        raise NotImplementedError

    def remove(self) -> bool:
        """Delete the table; whether there was one.

        Raises:
            KernelError: it cannot be deleted.
        """
        raise NotImplementedError
