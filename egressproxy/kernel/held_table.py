"""``HeldTable``: the table as it was put, compared with what the kernel has, and put back.

Every call blocks. One thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.errors import KernelError
from egressproxy.kernel.nft_apply import FAMILY, TABLE
from egressproxy.kernel.takeover import remember_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeAlias

    from egressproxy.kernel.nft_apply import Nft, TableState

    Script: TypeAlias = Callable[[TableState | None], str]
    """The text of a table, given what the kernel has."""

GONE: Final = "the table is gone"
CHANGED: Final = "the table was changed"
ELEMENTS: Final = "a set of ranges was changed"
_SET_IS_WRONG: Final = f"flush set {FAMILY} {TABLE} "


class HeldTable:
    """What the table has to be.

    Args:
        nft: how to reach it.
        state: where its fingerprint is remembered for others (``nft status``).
    """

    def __init__(self, nft: Nft, state: Path) -> None:
        self._nft = nft
        self._state = state
        self._script: Script | None = None
        self._fingerprint = ""
        self.seen: TableState | None = None
        """What the kernel had when it was last looked at."""
        self.unremembered = ""
        """Why the fingerprint could not be kept, if so: the table is held all the same."""

    def check(self, script: Script) -> None:
        """Ask the kernel whether it would take a table; nothing changes.

        Raises:
            KernelError: it would not.
        """
        self._nft.check(script(self._nft.table_state()))

    def put(self, script: Script) -> None:
        """Put a table in the place of what is there, in one transaction; it is held from then on.

        Raises:
            KernelError: it was not put, or nobody knows; what was held is held further.
        """
        self._nft.apply(script(self._nft.table_state()))
        self._adopt(script)

    def insist(self, script: Script) -> None:
        """The same, but where it fails now ``difference`` says so until ``put_back`` succeeds.

        Raises:
            KernelError: it is not in place yet.
        """
        self._script, self._fingerprint = script, ""
        self.put(script)

    def difference(self, *, elements: bool = False) -> str:
        """What is not as it was put; empty while all is well.

        Args:
            elements: compare what sets of ranges have, too: slower with thousands of prefixes.

        Raises:
            KernelError: nft cannot be asked.
        """
        if self._script is None:
            return ""
        self.seen = found = self._nft.table_state(elements=elements)
        if found is None:
            return GONE
        if found.fingerprint != self._fingerprint:
            return CHANGED
        return ELEMENTS if elements and _SET_IS_WRONG in self._script(found) else ""

    def put_back(self) -> bool:
        """Put the held table in place again; whether it had to be made anew, with empty sets.

        Raises:
            KernelError: it is not in place.
        """
        script = self._script
        if script is None:
            return False
        existing = self._nft.table_state(elements=True)
        if existing is not None and self._mended(script, existing):
            return False
        self._nft.apply(script(None))
        self._adopt(script)
        return True

    def _mended(self, script: Script, existing: TableState) -> bool:
        """Whether writing the rules anew was enough; counters and names' sets then keep theirs.

        What is not of our making, such as a map, would be left; so would the hook of a chain.
        """
        try:
            self._nft.apply(script(existing))
        except KernelError:
            return False
        if not self._fingerprint:
            self._adopt(script)
            return True
        return not self.difference(elements=True)

    def _adopt(self, script: Script) -> None:
        seen = self._nft.table_state()
        self._script, self.seen = script, seen
        self._fingerprint = seen.fingerprint if seen else ""
        self.unremembered = ""
        try:
            remember_table(seen, self._state)
        except KernelError as error:  # a full disk is no reason to leave an older policy in force
            self.unremembered = str(error)
