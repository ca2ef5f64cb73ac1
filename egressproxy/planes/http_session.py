"""One client connection that speaks HTTP/1: every request judged, answers in order, no I/O.

Signatures first; the body of this module follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from egressproxy.planes.http_commands import Command, Judge
    from egressproxy.policy.verdict import Reason
    from egressproxy.wire.http_authority import Authority


class HttpSession:
    """Bytes and socket events in, commands out.

    Args:
        judge: asked for every request.
        port: transparent plane: the original destination's port, judged and dialled whatever Host
            says. Explicit plane: ``None``, the port is the absolute-form target's.
        max_head_bytes: request and response heads.
        max_buffer_bytes: client bytes kept while they cannot be forwarded.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        port: int | None,
        max_head_bytes: int = 65536,
        max_buffer_bytes: int = 65536,
    ) -> None:
        raise NotImplementedError

    # What happened, in.

    def receive_client(self, data: bytes | bytearray | memoryview) -> list[Command]:
        """Bytes from the client (copied; the caller may reuse its buffer). Never empty."""
        raise NotImplementedError

    def client_eof(self) -> list[Command]:
        """The client closed its sending half; answers still go out."""
        raise NotImplementedError

    def client_lost(self) -> list[Command]:
        """The client reset, or cannot be written to."""
        raise NotImplementedError

    def upstream_connected(
        self, upstream: int, *, dialled_ip: str = "", destination_match: str = ""
    ) -> list[Command]:
        """A ``Dial`` succeeded."""
        raise NotImplementedError

    def upstream_failed(self, upstream: int, reason: Reason) -> list[Command]:
        """A ``Dial`` failed: resolve_failed, dial_failed (502), dial_timeout (504), or a deny (403)."""
        raise NotImplementedError

    def receive_upstream(
        self, upstream: int, data: bytes | bytearray | memoryview
    ) -> list[Command]:
        """Bytes from an upstream. Never empty."""
        raise NotImplementedError

    def upstream_eof(self, upstream: int) -> list[Command]:
        """An upstream closed its sending half."""
        raise NotImplementedError

    def upstream_lost(self, upstream: int) -> list[Command]:
        """An upstream reset, or cannot be written to."""
        raise NotImplementedError

    def timed_out(self) -> list[Command]:
        """The engine's timer for ``awaits_head`` ran out: 408 for a part of a head, else close."""
        raise NotImplementedError

    def drain(self) -> list[Command]:
        """Finish what is under way, then close (SIGTERM)."""
        raise NotImplementedError

    def revoke(self) -> list[Command]:
        """Close everything now: a reload denied ``active``."""
        raise NotImplementedError

    # What it wants, out.

    def wants_client_data(self) -> bool:
        """Whether the client should be read; the engine also holds while its own queues are full."""
        raise NotImplementedError

    def wants_upstream_data(self) -> bool:
        """Whether the connected upstream should be read (between requests too, for its FIN)."""
        raise NotImplementedError

    @property
    def awaits_head(self) -> bool:
        """Whether the hello timeout applies: the first head, or a part of a later one."""
        raise NotImplementedError

    @property
    def is_over(self) -> bool:
        """Whether the last command was given."""
        raise NotImplementedError

    @property
    def active(self) -> Authority | None:
        """Whom the request under way is for; what a reload judges again."""
        raise NotImplementedError
