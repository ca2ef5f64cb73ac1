"""``ship`` and ``receive``: a compiled policy on its way from the supervisor to the workers.

Large parts travel as sealed memfds that every worker maps (O(1) to attach and to drop); the rest as
chunks that each take about a millisecond to read, so that a worker's background thread can receive
while its engine runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from egressproxy.policy.ruleset import Ruleset


@dataclass(frozen=True, slots=True)
class Shipment:
    """What to send: every chunk in order, and every descriptor (SCM_RIGHTS) in order.

    The shipment owns ``fds`` until ``close``; keep it open for workers that start later.
    """

    chunks: tuple[bytes, ...]
    fds: tuple[int, ...]

    def close(self) -> None:
        """Close the descriptors."""
        raise NotImplementedError

    def __enter__(self) -> Shipment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def ship(ruleset: Ruleset) -> Shipment:
    """Pack a ruleset for any number of workers."""
    raise NotImplementedError


def _rest() -> None:
    time.sleep(0.0002)


def receive(
    chunks: Iterable[bytes], fds: Sequence[int], *, pause: Callable[[], None] = _rest
) -> Ruleset:
    """Unpack; ``pause`` is called between chunks and gives the engine's thread its turn.

    The descriptors are mapped, not kept: the caller closes its ``fds`` afterwards.
    """
    raise NotImplementedError
