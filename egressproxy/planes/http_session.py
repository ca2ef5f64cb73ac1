"""One client connection that speaks HTTP/1: bytes and socket events in, commands out, no I/O.

The engine (or a test) calls a method for everything that happens and carries out the commands that
it returns; see ``http_commands``. How requests are judged, forwarded and answered is
``http_exchanges``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from egressproxy.errors import WireError
from egressproxy.planes.http_commands import CloseReason
from egressproxy.planes.http_exchanges import Exchanges
from egressproxy.policy.verdict import Action, Reason, Verdict

if TYPE_CHECKING:
    from egressproxy.planes.http_commands import Command, NameRecord
    from egressproxy.wire.http_authority import Authority

_DIAL_ERRORS: Final = {
    Reason.RESOLVE_FAILED: 502,
    Reason.DIAL_FAILED: 502,
    Reason.DIAL_TIMEOUT: 504,
}


class HttpSession(Exchanges):
    """The session of one client connection.

    Every call returns the commands to carry out, in order. Calls about an upstream that is no
    longer known (its close crossed an event) and calls after the session is over do nothing.

    Args:
        judge: asked for every request.
        port: transparent plane: the original destination's port, judged and dialled whatever Host
            says. Explicit plane: ``None``, the port is the absolute-form target's.
        max_head_bytes: request and response heads.
        max_buffer_bytes: client bytes kept while they cannot be forwarded; at least a head's.
    """

    __slots__ = ()

    # What an operator sees.

    @property
    def last_record(self) -> NameRecord | None:
        """The open record of the last request."""
        return self._records.last

    def bytes_moved(self) -> tuple[int, int]:
        """Octets up and down of the names that are open."""
        return self._records.bytes_moved()

    # What it wants, out.

    def wants_client_data(self) -> bool:
        """Whether the client should be read; the engine also holds while its own queues are full.

        At most ``max_buffer_bytes`` and one read more are ever kept.
        """
        return not (self._is_over or self._is_eof or self._down.buffered >= self._max_buffer_bytes)

    def wants_upstream_data(self) -> bool:
        """Whether the upstream should be read: between requests too, to notice that it leaves."""
        return self._peer is not None and self._peer.is_connected and not self._is_over

    @property
    def awaits_head(self) -> bool:
        """Whether the hello timeout applies: the first head, or a part of a later one."""
        return (
            self._exchange is None
            and not self._is_over
            and (not self._judged_any or self._down.buffered > 0)
        )

    @property
    def is_idle(self) -> bool:
        """Whether the connection is kept alive between two requests."""
        return self._exchange is None and not self._is_over and not self.awaits_head

    @property
    def is_over(self) -> bool:
        """Whether the last command was given."""
        return self._is_over

    @property
    def active(self) -> Authority | None:
        """Whom the request under way is for; what a reload judges again."""
        return self._exchange.record.authority if self._exchange is not None else None

    # What happened, in.

    def receive_client(self, data: bytes | bytearray | memoryview) -> list[Command]:
        """Bytes from the client (copied; the caller may reuse its buffer). Never empty."""
        if self._is_over:
            return []
        self._down.feed(data)
        return self._advance()

    def client_eof(self) -> list[Command]:
        """The client closed its sending half; answers still go out."""
        self._is_eof = True
        return self._advance()

    def client_lost(self) -> list[Command]:
        """The client reset, or cannot be written to."""
        return self.abort(CloseReason.CLIENT_RESET)

    def upstream_connected(
        self, upstream: int, *, dialled_ip: str = "", destination_match: str = ""
    ) -> list[Command]:
        """A ``Dial`` succeeded."""
        peer = self._known(upstream)
        if peer is None:
            return []
        peer.is_connected = True
        peer.dialled_ip, peer.destination_match = dialled_ip, destination_match
        return self._advance()

    def upstream_failed(self, upstream: int, reason: Reason) -> list[Command]:
        """A ``Dial`` failed.

        ``resolve_failed`` and ``dial_failed`` answer 502, ``dial_timeout`` 504; every other reason
        (``forbidden_address``, ``destination_mismatch``, ``loop``, a limit) is a deny, 403.
        """
        peer, exchange = self._known(upstream), self._exchange
        if peer is None or exchange is None:
            return []
        self._peer = None
        status = _DIAL_ERRORS.get(reason)
        verdict = Verdict(
            Action.DENY if status is None else Action.ERROR,
            reason,
            peer.verdict.rule_id,
            peer.verdict.decided_by,
            rule=peer.verdict.rule,
        )
        if status is None:
            self._refuse(exchange.record.authority, verdict, exchange.head)
        else:
            self._records.deny(exchange.record.authority, verdict, CloseReason.ERROR)
            self._answer_error(status, reason, CloseReason.ERROR)
        return self._out.take()

    def receive_upstream(
        self, upstream: int, data: bytes | bytearray | memoryview
    ) -> list[Command]:
        """Bytes from an upstream. Never empty."""
        peer = self._known(upstream)
        if peer is None:
            return []
        if self._exchange is None or not self._exchange.is_sent:
            # A response that nobody asked for would be taken for the next one's.
            self._close_upstream(reset=True)
            return self._advance()
        peer.wire.feed(data)
        try:
            self._relay_response(peer, self._exchange)
        except WireError:
            self._cut("malformed_response", 502, CloseReason.MALFORMED_RESPONSE)
        return self._advance()

    def upstream_eof(self, upstream: int) -> list[Command]:
        """An upstream closed its sending half."""
        peer, exchange = self._known(upstream), self._exchange
        if peer is None:
            return []
        if exchange is None:
            self._close_upstream()
        elif not exchange.is_response_begun:
            self._upstream_gone(CloseReason.UPSTREAM_CLOSED)
        else:
            peer.wire.feed_eof()
            try:
                self._relay_response(peer, exchange)
            except WireError:
                self._upstream_gone(CloseReason.UPSTREAM_CLOSED)
        return self._advance()

    def upstream_lost(self, upstream: int) -> list[Command]:
        """An upstream reset, or cannot be written to."""
        if self._known(upstream) is None:
            return []
        if self._exchange is None:
            self._close_upstream()
        else:
            self._upstream_gone(CloseReason.UPSTREAM_RESET)
        return self._advance()

    def timed_out(self) -> list[Command]:
        """The engine's timer for ``awaits_head`` or ``is_idle`` ran out; else nothing happens."""
        if self._exchange is not None or self._is_over:
            return []
        if not self._down.buffered:
            why = CloseReason.IDLE if self._judged_any else CloseReason.TIMEOUT
            self._finish_early(Reason.HELLO_TIMEOUT, why)
        elif self._judged_any:
            self._answer_error(408, Reason.HELLO_TIMEOUT, CloseReason.TIMEOUT)
        else:
            self._refuse(None, Verdict(Action.DENY, Reason.HELLO_TIMEOUT), None, status=408)
        return self._out.take()

    def drain(self) -> list[Command]:
        """Finish what is under way, then close (SIGTERM)."""
        self._is_draining = True
        if self._exchange is None and not self._is_over:
            self._end(CloseReason.DRAINED)
        return self._out.take()

    def abort(self, close_reason: CloseReason) -> list[Command]:
        """Close everything now: a reload denied ``active``, an idle timeout, the drain's end."""
        if not self._is_over:
            self._end(close_reason, reset=True)
        return self._out.take()
