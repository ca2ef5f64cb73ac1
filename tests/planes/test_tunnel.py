"""Tunnels in audit mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.planes.context import AllowRecords, EngineOptions
from egressproxy.policy.rules import Mode
from egressproxy.policy.verdict import Reason
from egressproxy.resolve.guard import Guard
from egressproxy.wire.alert import ACCESS_DENIED
from tests.planes.world import (
    ALLOW,
    DENY,
    SERVER,
    World,
    client_hello,
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

    def test_a_flow_without_a_name_goes_through_the_guard(self, worlds: Worlds) -> None:
        world = worlds()
        port = world.intercept()
        world.obey(mode=Mode.AUDIT)
        world.context.guard = Guard()
        client = world.connect(port)
        client.send(client_hello(None))
        assert client.recv_all() == ACCESS_DENIED
        assert world.outcomes() == [(DENY, Reason.FORBIDDEN_ADDRESS, "refused")]
