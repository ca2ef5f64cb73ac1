"""Commands leave in the order they were meant, bytes gathered."""

from __future__ import annotations

from egressproxy.planes.http_commands import CloseUpstream, SendClient, SendUpstream
from egressproxy.planes.http_outbox import Outbox


def test_bytes_are_gathered_and_sent_before_the_next_command() -> None:
    out = Outbox()
    out.send_upstream(1, [b"a", b""])
    out.send_client([b"x"])
    out.send_upstream(1, [b"b"])
    out.send_client([b"y"])
    out.add(CloseUpstream(1))
    out.send_upstream(2, [b"c"])
    assert out.take() == [
        SendClient(b"xy"),
        SendUpstream(1, b"ab"),
        CloseUpstream(1),
        SendUpstream(2, b"c"),
    ]


def test_nothing_is_sent_twice_and_empty_bytes_never() -> None:
    out = Outbox()
    out.send_client([b"x"])
    assert out.take() == [SendClient(b"x")]
    out.send_client([b""])
    out.send_upstream(1, [])
    out.send_upstream(1, [b""])
    assert out.take() == []
