"""Tunnels in audit mode, and to addresses that are never dialled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from egressproxy.planes.context import AllowRecords, EngineOptions
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Reason
from egressproxy.resolve.guard import Guard
from egressproxy.wire.alert import ACCESS_DENIED
from tests.planes.world import (
    ALLOW,
    DENY,
    ERROR,
    NAME,
    SERVER,
    World,
    client_hello,
    rule,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planes.world import World

    Worlds = Callable[..., World]


class TestAudit:
    def test_a_would_be_deny_is_served_and_written_at_once(self, worlds: Worlds) -> None:
        world = worlds(None, EngineOptions(allow_records=AllowRecords.NONE))
        port = world.intercept()
        world.obey(mode=Mode.AUDIT)
        world.resolver.names["new.example"] = (SERVER,)
        server = world.serve(port)
        client = world.connect(port)
        client.send(client_hello("new.example"))
        world.upstream(server)
        world.turn()
        (record,) = world.records
        assert (record.action, record.would_deny, record.reason, record.close_reason) == (
            ALLOW,
            True,
            Reason.DEFAULT_DENY,
            "open",
        )


NOT_TLS = b"\x00\x01\x02\x03 neither TLS nor HTTP\r\n\r\n"


class TestNeverDialled:
    """The original destination is loopback, which only the guard of other tests exempts."""

    @pytest.mark.parametrize("mode", Mode)
    @pytest.mark.parametrize(
        ("sent", "answer"),
        [(client_hello(None), ACCESS_DENIED), (NOT_TLS, b"HTTP/1.1 400 ")],
        ids=["no name", "no TLS"],
    )
    def test_a_flow_without_a_name_is_judged_by_its_address(
        self, worlds: Worlds, sent: bytes, answer: bytes, mode: Mode
    ) -> None:
        world = worlds()
        port = world.intercept()
        world.obey(mode=mode)
        world.context.guard = Guard()
        client = world.connect(port)
        client.send(sent)
        assert client.recv_all().startswith(answer)
        assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]
        assert not any(world.counters.totals().would_deny.values())

    def test_an_allowed_name_is_judged_as_a_name(self, worlds: Worlds) -> None:
        world = worlds()
        port = world.intercept()
        world.obey(rule("web", NAME, ports=(f"tls:{port}",)))
        world.context.guard = Guard()
        world.resolver.names[NAME] = ()
        client = world.connect(port)
        client.send(client_hello(NAME))
        with pytest.raises(ConnectionResetError):
            client.recv_all()
        assert world.outcomes() == [(ERROR, Reason.RESOLVE_FAILED, "error")]

    def test_so_is_a_name_that_no_rule_allows(self, worlds: Worlds) -> None:
        world = worlds()
        port = world.intercept()
        world.obey()
        world.context.guard = Guard()
        client = world.connect(port)
        client.send(client_hello(NAME))
        assert client.recv_all() == ACCESS_DENIED
        assert world.outcomes() == [(DENY, Reason.DEFAULT_DENY, "refused")]
