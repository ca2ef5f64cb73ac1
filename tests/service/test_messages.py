"""Messages between our own processes come back as they went."""

from __future__ import annotations

import pytest

from egressproxy.errors import ServiceError
from egressproxy.names import DnsName
from egressproxy.planes.context import ListenerKind
from egressproxy.service.messages import (
    Abort,
    Answer,
    Boot,
    Commit,
    Committed,
    Done,
    Drain,
    End,
    Failed,
    Order,
    Prepare,
    Reopen,
    Status,
    StatusReport,
    decode,
    encode,
)
from egressproxy.service.options import Endpoint, WorkerSpec
from egressproxy.settings import Settings

SPEC = WorkerSpec(
    index=1,
    workers=2,
    settings=Settings(max_flows=7),
    kinds=(ListenerKind.EXPLICIT, ListenerKind.TPROXY),
    servers=(Endpoint("::1", 53),),
    overrides={DnsName("a.example"): ("192.0.2.1",)},
)
MESSAGES: tuple[Order | Answer, ...] = (
    Boot(1, SPEC),
    Prepare(2, 5),
    Commit(3, 5),
    Abort(4, 5),
    Drain(5),
    End(),
    Reopen(6),
    Status(7),
    Done(1),
    Failed(2, "no"),
    Committed(3, revoked=1, kept=2, stall_s=0.5),
    StatusReport(7, generation=5, active=9),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_round_trip(message: Order | Answer) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("packet", [b"", b"\x80", b"hello", b"cnowhere\nNothing\n."])
def test_other_bytes_are_an_error_of_the_tree(packet: bytes) -> None:
    with pytest.raises(ServiceError, match="control packet"):
        decode(packet)
