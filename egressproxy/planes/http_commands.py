"""What an ``HttpSession`` wants done: a closed union of commands, and the facts it records.

Commands are carried out in the order they are given. The session never waits for one: what came of
it arrives as a later call (``upstream_connected``, ``upstream_failed``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from egressproxy.policy.verdict import Reason, Verdict
    from egressproxy.wire.http_authority import Authority


class Judge(Protocol):
    """Asks policy about one request; called for every request, so it must be cheap.

    ``authority`` is ``None`` where the bytes name nobody. ``fault`` is what the wire layer found:
    ``ip_literal`` (``authority.address`` is set) and ``not_tls_or_http`` can be allowed in audit
    mode, every other fault is refused whatever the answer says.
    """

    def __call__(self, authority: Authority | None, fault: Reason | None) -> Verdict:
        """The verdict."""
        ...


class CloseReason(StrEnum):
    """Why a flow or an HTTP session, and with it a record, ended."""

    DONE = "done"
    """Request and response complete, and one side asked for no more."""
    CLIENT_CLOSED = "client_closed"
    CLIENT_RESET = "client_reset"
    UPSTREAM_CLOSED = "upstream_closed"
    """The upstream left before its response was complete."""
    UPSTREAM_RESET = "upstream_reset"
    MALFORMED_RESPONSE = "malformed_response"
    REFUSED = "refused"
    ERROR = "error"
    """No upstream was to be had."""
    TIMEOUT = "timeout"
    IDLE = "idle"
    HALF_CLOSED = "half_closed"
    """One direction ended, and nothing moved in the other for ``half_closed_timeout_s``."""
    DRAINED = "drained"
    REVOKED = "revoked"
    EVICTED = "evicted"
    """More names on one connection than are kept; the connection lives on."""


@dataclass(slots=True)
class NameRecord:
    """The facts of one judged name on one connection (the only mutable object here).

    ``requests`` counts those whose head was sent upstream, or the one that was refused.
    ``bytes_up`` and ``bytes_down`` count what was handed to the upstream and to the client for
    this name, heads included. ``authority`` is ``None`` where the bytes named nobody.
    """

    authority: Authority | None
    verdict: Verdict
    requests: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    dialled_ip: str = ""
    destination_match: str = ""
    close_reason: CloseReason | None = None


@dataclass(frozen=True, slots=True)
class SendClient:
    """Bytes for the client, after all that were sent before."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SendUpstream:
    """Bytes for an upstream that ``upstream_connected`` was called for."""

    upstream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect; then call ``upstream_connected`` or ``upstream_failed`` with the same number.

    ``authority`` is ``None``, or has no name, only for a flow without a name that audit or pass 1
    allowed: the client's original destination is dialled (explicit plane: ``authority.address``),
    through the guard. ``verdict.rule`` carries what dialling needs.
    """

    upstream: int
    authority: Authority | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CloseUpstream:
    """Forget an upstream: cancel its dial or close its socket. No later call may name it.

    ``reset`` asks for a RST, so that the upstream cannot take a cut request for a whole one.
    """

    upstream: int
    reset: bool = False


@dataclass(frozen=True, slots=True)
class RefuseClient:
    """A deny: carry out the policy's ``refusal``.

    ``alert``: send ``data``, then as ``CloseClient``; ``reset``: RST; ``drop``: say nothing until
    the hello timeout. The session is over.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class CloseClient:
    """The session is over. Everything sent before is still delivered, unless ``reset``.

    Not ``reset``: ``shutdown(SHUT_WR)``, then read and discard within the drain bounds, then close.
    ``reset``: RST at once, so that a cut response cannot be taken for a whole one.
    """

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Tunnel:
    """From here on relay raw bytes both ways (websocket); the session is over.

    An end of input that the client has sent already is for the engine to pass on, and it goes
    on counting in ``record`` and finishes it itself.
    """

    upstream: int
    record: NameRecord


@dataclass(frozen=True, slots=True)
class Opened:
    """An allowed name has its upstream on this connection, for the optional ``open`` record."""

    record: NameRecord


@dataclass(frozen=True, slots=True)
class Finished:
    """A record is complete and to be written; given exactly once a record.

    Denies and errors come at once, allows when the session ends (or ``EVICTED``).
    """

    record: NameRecord


Command: TypeAlias = (
    SendClient
    | SendUpstream
    | Dial
    | CloseUpstream
    | RefuseClient
    | CloseClient
    | Tunnel
    | Opened
    | Finished
)
