"""What supervisor and worker say to each other over their control socket.

Every order carries a ``serial``; the worker answers each exactly once, in any order, with an answer
of the same serial. Messages are small: whatever has size (a policy, its list tables)
travels as the descriptor of a memfd beside the message (``service.bundle``).

Both ends are this package started by the same supervisor, so the messages are pickled dataclasses:
nothing else can write to the socket pair.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from egressproxy.errors import ServiceError

if TYPE_CHECKING:
    from egressproxy.service.options import WorkerSpec


@dataclass(frozen=True, slots=True)
class Boot:
    """First order: who the worker is. Descriptors: see ``Serving``."""

    serial: int
    spec: WorkerSpec


@dataclass(frozen=True, slots=True)
class Prepare:
    """Build the ruleset of a generation beside the one in force. Descriptors: the bundle's."""

    serial: int
    generation: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Put the prepared generation in force; answered with ``Committed``."""

    serial: int
    generation: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Forget the prepared generation."""

    serial: int
    generation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no new flow; end when the last one has ended."""

    serial: int


@dataclass(frozen=True, slots=True)
class End:
    """Cut what is open, write what is left of the record log, and end; no answer but the end."""

    serial: int = 0


@dataclass(frozen=True, slots=True)
class Reopen:
    """Open the record file anew (SIGUSR1)."""

    serial: int


@dataclass(frozen=True, slots=True)
class Status:
    """Ask for ``StatusReport``; also the sign of life."""

    serial: int


@dataclass(frozen=True, slots=True)
class Survey:
    """Write the open flows, ``most`` of the oldest and of the busiest, into the memfd beside it.

    Pickled, a list of ``planes.survey.FlowFacts``; answered with ``Done``.
    """

    serial: int
    most: int


Order = Boot | Prepare | Commit | Abort | Drain | End | Reopen | Status | Survey


@dataclass(frozen=True, slots=True)
class Done:
    """The order is carried out."""

    serial: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The order could not be carried out, and nothing has changed."""

    serial: int
    what: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The generation is in force.

    ``stall_s`` is the longest time since the preparation began in which the engine could not run.
    """

    serial: int
    revoked: int
    kept: int
    stall_s: float


@dataclass(frozen=True, slots=True)
class StatusReport:
    """What a worker is doing; ``generation`` is 0 before the first commit."""

    serial: int
    generation: int
    active: int


Answer = Done | Failed | Committed | StatusReport


def encode(message: object) -> bytes:
    """A message, of this module or of ``recorder_messages``, as one packet."""
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def decode(packet: bytes) -> Any:
    """The message in a packet that ``encode`` made.

    Raises:
        ServiceError: not such a packet, which would be a fault of this package.
    """
    try:
        return pickle.loads(packet)  # noqa: S301 - both ends are ours, see the module's docstring
    except (
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        ImportError,
        IndexError,
        ValueError,
    ) as error:
        raise ServiceError(f"a control packet cannot be read: {error}") from error
