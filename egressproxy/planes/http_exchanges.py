"""The exchanges of one HTTP/1 client connection, one after the other: the moves of ``HttpSession``.

Rules of this file:

- One exchange at a time. A pipelined request waits unread until the response before it is complete,
  so answers and refusals are in order and nothing after a refused request is ever looked at.
- One upstream at a time. It is used again for the same authority under the same verdict; another
  name closes it and dials its own.
- What is sent is written by ``wire.http_downstream`` and ``wire.http_response`` from facts.
- A response that was cut is never completed: the client gets a reset.
- After a refusal or an error the connection closes; a response that comes before its request is
  complete (413) says ``Connection: close``.

A request is sent a second time only if its upstream had answered others before, no byte of an
answer came, and it is idempotent and without a body (RFC 9110 section 9.2.2): that is the race with
an upstream's idle timeout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from egressproxy.errors import HttpError
from egressproxy.planes.http_commands import (
    CloseClient,
    CloseReason,
    CloseUpstream,
    Dial,
    Finished,
    NameRecord,
    Opened,
    RefuseClient,
    Tunnel,
)
from egressproxy.planes.http_outbox import Outbox
from egressproxy.planes.http_records import Records, same_verdict
from egressproxy.policy.verdict import Action, Reason, Verdict
from egressproxy.wire.http_authority import parse_authority
from egressproxy.wire.http_downstream import BodyPart, Downstream
from egressproxy.wire.http_refusal import refusal
from egressproxy.wire.http_response import ResponseHead, Upstream

if TYPE_CHECKING:
    from egressproxy.planes.http_commands import Command, Judge
    from egressproxy.wire.http_authority import Authority
    from egressproxy.wire.http_request import RequestHead

_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


@dataclass(slots=True)
class Peer:
    """The upstream of the moment."""

    number: int
    authority: Authority | None
    verdict: Verdict
    wire: Upstream
    is_connected: bool = False
    is_used: bool = False
    dialled_ip: str = ""
    destination_match: str = ""


@dataclass(slots=True)
class Exchange:
    """The request under way; ``head`` is ``None`` for audited bytes that are not HTTP."""

    head: RequestHead | None
    record: NameRecord
    is_sent: bool = False
    is_read: bool = False
    is_request_done: bool = False
    is_response_begun: bool = False


class Exchanges:
    """State and moves; who calls them, and what for, is ``HttpSession``."""

    __slots__ = (
        "_down",
        "_exchange",
        "_is_draining",
        "_is_eof",
        "_is_over",
        "_judge",
        "_judged_any",
        "_max_buffer_bytes",
        "_max_head_bytes",
        "_number",
        "_out",
        "_peer",
        "_records",
    )

    def __init__(
        self,
        judge: Judge,
        *,
        port: int | None,
        max_head_bytes: int = 65536,
        max_buffer_bytes: int = 65536,
    ) -> None:
        self._judge = judge
        self._max_head_bytes = max_head_bytes
        self._max_buffer_bytes = max(max_buffer_bytes, max_head_bytes)
        self._down = Downstream(port=port, max_head_bytes=max_head_bytes)
        self._out = Outbox()
        self._records = Records(self._out)
        self._peer: Peer | None = None
        self._exchange: Exchange | None = None
        self._number = 0
        self._judged_any = False
        self._is_eof = False
        self._is_draining = False
        self._is_over = False

    # One exchange after the other.

    def _advance(self) -> list[Command]:
        try:
            while not self._is_over and self._step():
                pass
        except HttpError as error:
            self._refuse_bytes(error)
        return self._out.take()

    def _step(self) -> bool:
        """Go on with the client's bytes; whether there is a reason to try again at once."""
        peer, exchange = self._peer, self._exchange
        if exchange is None:
            return self._begin()
        if peer is not None and peer.is_connected and not exchange.is_request_done:
            self._relay_request(peer, exchange)
        return False

    def _begin(self) -> bool:
        head = self._down.next_head()
        if head is None:
            if self._is_eof:
                self._finish_early(Reason.CLOSED_BEFORE_HELLO, CloseReason.CLIENT_CLOSED)
            return False
        self._judged_any = True
        authority = head.authority
        verdict = self._judge(authority, Reason.IP_LITERAL if authority.name is None else None)
        if not verdict.is_allow:
            self._refuse(authority, verdict, head)
            return False
        self._exchange = Exchange(head, self._records.use(authority, verdict))
        peer = self._peer
        if peer is None or peer.authority != authority or not same_verdict(peer.verdict, verdict):
            self._close_upstream()
            self._dial(authority, verdict)
        return True

    def _relay_request(self, peer: Peer, exchange: Exchange) -> None:
        head = exchange.head
        if head is None:
            self._tunnel(peer, exchange)
            return
        if not exchange.is_sent:
            exchange.is_sent = True
            exchange.record.requests += 1
            self._use(peer, exchange.record)
            self._up(peer, exchange, peer.wire.send_head(head))
        part = BodyPart(b"", []) if exchange.is_read else self._down.read_body()
        if part.data:
            self._up(peer, exchange, peer.wire.send_body(part.data))
        if part.trailers is not None:
            self._up(peer, exchange, peer.wire.send_end(part.trailers))
            exchange.is_read = exchange.is_request_done = True
        elif self._is_eof:
            self._cut("client_closed", 400, CloseReason.CLIENT_CLOSED)

    def _relay_response(self, peer: Peer, exchange: Exchange) -> None:
        body: list[bytes] = []
        while self._exchange is exchange and not self._is_over:
            event = peer.wire.next_event()
            if isinstance(event, (bytes, bytearray)):
                body.append(event)
                continue
            if body:  # gathered, so that tiny chunks do not stay tiny
                self._down_to(exchange, self._down.send_body(b"".join(body)))
                body.clear()
            if event is None:
                return
            if isinstance(event, ResponseHead):
                self._relay_head(peer, exchange, event)
            else:
                self._down_to(exchange, self._down.send_end(event.trailers))
                self._complete(peer, exchange)

    def _relay_head(self, peer: Peer, exchange: Exchange, head: ResponseHead) -> None:
        is_last = (
            self._is_draining
            or not exchange.is_request_done
            or (self._is_eof and not self._down.buffered)
        )
        self._down_to(exchange, self._down.send_head(head, close=is_last))
        if head.is_switch:
            self._tunnel(peer, exchange)
        elif not head.is_interim:
            exchange.is_response_begun = True

    def _complete(self, peer: Peer, exchange: Exchange) -> None:
        self._exchange = None
        if peer.wire.can_go_on:
            peer.is_used = True
        else:
            self._close_upstream(reset=not exchange.is_request_done)
        if self._is_draining:
            self._end(CloseReason.DRAINED)
        elif self._down.can_go_on:
            self._down.next_cycle()
        else:
            self._end(CloseReason.DONE)

    def _tunnel(self, peer: Peer, exchange: Exchange) -> None:
        """Hand over both sides, with what each has sent beyond the heads."""
        self._use(peer, exchange.record)
        self._up(peer, exchange, [self._down.take_rest()])
        self._down_to(exchange, [peer.wire.take_rest()])
        self._records.release(exchange.record)
        self._records.finish(CloseReason.DONE)
        self._out.add(Tunnel(peer.number, exchange.record))
        self._is_over = True

    # What goes wrong.

    def _upstream_gone(self, close_reason: CloseReason) -> None:
        peer, exchange = self._peer, self._exchange
        if peer is None or exchange is None or not _may_repeat(peer, exchange):
            self._cut("upstream_closed", 502, close_reason)
            return
        exchange.is_sent = exchange.is_request_done = False
        exchange.record.requests -= 1
        self._close_upstream()
        self._dial(peer.authority, peer.verdict)

    def _cut(self, reason: str, status: int, close_reason: CloseReason) -> None:
        """Give an exchange up: an error while nothing was answered, else a reset."""
        self._close_upstream(reset=True)
        if self._exchange is not None and self._exchange.is_response_begun:
            self._end(close_reason, reset=True)
        else:
            self._answer_error(status, reason, close_reason)

    def _answer_error(self, status: int, reason: str, close_reason: CloseReason) -> None:
        exchange = self._exchange
        head = exchange.head if exchange is not None else None
        if exchange is None or head is not None:
            self._out.send_client([_page(status, reason, head)])
        self._end(close_reason)

    def _refuse_bytes(self, error: HttpError) -> None:
        """Bytes that are no request, or no body: policy has a say in the former only."""
        exchange, reason = self._exchange, Reason(error.code)
        authority = _whom(error) if exchange is None else exchange.record.authority
        verdict = self._judge(authority, reason)
        if verdict.is_allow and reason is Reason.NOT_TLS_OR_HTTP and not self._judged_any:
            self._judged_any = True
            self._exchange = Exchange(None, self._records.use(None, verdict))
            self._dial(None, verdict)
            return
        if verdict.is_allow:
            verdict = Verdict(Action.DENY, reason)
        self._judged_any = True
        if exchange is not None and exchange.is_response_begun:
            self._records.deny(authority, verdict, CloseReason.REFUSED)
            self._end(CloseReason.REFUSED, reset=True)
        else:
            head = exchange.head if exchange is not None else None
            self._refuse(authority, verdict, head, status=error.status, detail=str(error))

    def _refuse(
        self,
        authority: Authority | None,
        verdict: Verdict,
        head: RequestHead | None,
        *,
        status: int = 403,
        detail: str = "",
    ) -> None:
        self._close_upstream(reset=self._exchange is not None)
        self._records.deny(authority, verdict, CloseReason.REFUSED)
        self._records.finish(CloseReason.REFUSED)
        page = refusal(
            status,
            verdict.reason,
            host=str(authority or ""),
            rule=verdict.rule_id or "",
            detail=detail,
            accept=head.accept if head is not None else b"",
            head_only=head is not None and head.method == b"HEAD",
        )
        self._out.add(RefuseClient(page))
        self._exchange = None
        self._is_over = True

    def _finish_early(self, reason: Reason, close_reason: CloseReason) -> None:
        """The client said nothing, or no whole head; the first time that is its whole record."""
        if not self._judged_any:
            record = NameRecord(None, Verdict(Action.DENY, reason), close_reason=close_reason)
            self._out.add(Finished(record))
        self._end(close_reason)

    # Commands.

    def _known(self, number: int) -> Peer | None:
        peer = self._peer
        return peer if peer is not None and peer.number == number and not self._is_over else None

    def _use(self, peer: Peer, record: NameRecord) -> None:
        if not record.dialled_ip:  # before, it may still become a deny or an error
            self._out.add(Opened(record))
        record.dialled_ip, record.destination_match = peer.dialled_ip, peer.destination_match

    def _dial(self, authority: Authority | None, verdict: Verdict) -> None:
        self._number += 1
        wire = Upstream(max_head_bytes=self._max_head_bytes)
        self._peer = Peer(self._number, authority, verdict, wire)
        self._out.add(Dial(self._number, authority, verdict))

    def _close_upstream(self, *, reset: bool = False) -> None:
        if self._peer is not None:
            self._out.add(CloseUpstream(self._peer.number, reset))
            self._peer = None

    def _end(self, close_reason: CloseReason, *, reset: bool = False) -> None:
        self._close_upstream(reset=reset)
        self._records.finish(close_reason)
        self._out.add(CloseClient(reset))
        self._exchange = None
        self._is_over = True

    def _up(self, peer: Peer, exchange: Exchange, pieces: list[bytes]) -> None:
        exchange.record.bytes_up += sum(map(len, pieces))
        self._out.send_upstream(peer.number, pieces)

    def _down_to(self, exchange: Exchange, pieces: list[bytes]) -> None:
        exchange.record.bytes_down += sum(map(len, pieces))
        self._out.send_client(pieces)


def _whom(error: HttpError) -> Authority | None:
    return parse_authority(error.host.encode("ascii"), None)[0] if error.host else None


def _may_repeat(peer: Peer, exchange: Exchange) -> bool:
    head = exchange.head
    return (
        peer.is_used
        and not peer.wire.has_answered
        and head is not None
        and not head.has_body
        and head.method in _IDEMPOTENT
    )


def _page(status: int, reason: str, head: RequestHead | None) -> bytes:
    if head is None:
        return refusal(status, reason)
    return refusal(
        status,
        reason,
        host=str(head.authority),
        accept=head.accept,
        head_only=head.method == b"HEAD",
    )
