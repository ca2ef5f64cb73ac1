"""Commands in the order they were meant: bytes are gathered and sent as one before the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.planes.http_commands import SendClient, SendUpstream

if TYPE_CHECKING:
    from egressproxy.planes.http_commands import Command


class Outbox:
    """What one call of the session returns."""

    __slots__ = ("_commands", "_to_client", "_to_upstream", "_upstream")

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._to_client: list[bytes] = []
        self._to_upstream: list[bytes] = []
        self._upstream = 0

    def send_client(self, pieces: list[bytes]) -> None:
        """Bytes for the client."""
        self._to_client += pieces

    def send_upstream(self, upstream: int, pieces: list[bytes]) -> None:
        """Bytes for an upstream; before another one's, its close or dial must have been added."""
        self._upstream = upstream
        self._to_upstream += pieces

    def add(self, command: Command) -> None:
        """A command after all bytes so far."""
        self._flush()
        self._commands.append(command)

    def take(self) -> list[Command]:
        """Everything since the last time."""
        self._flush()
        commands, self._commands = self._commands, []
        return commands

    def _flush(self) -> None:
        if self._to_client:
            if data := b"".join(self._to_client):
                self._commands.append(SendClient(data))
            self._to_client.clear()
        if self._to_upstream:
            if data := b"".join(self._to_upstream):
                self._commands.append(SendUpstream(self._upstream, data))
            self._to_upstream.clear()
