"""What a store says it has, on both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from egressproxy.review.holdings import holdings
from tests.review.filled import GATEWAYS, fill, known_records

if TYPE_CHECKING:
    from egressproxy.review.store import Store


def test_what_it_holds_is_what_was_written(store: Store) -> None:
    known = known_records(400)
    fill(store, known)
    found = holdings(store)
    assert [each.name for each in found.gateways] == sorted(GATEWAYS)
    for each in found.gateways:
        own = [record for gateway, record in known if gateway == each.name]
        denied = [record for record in own if record.action == "deny" or record.would_deny]
        assert (each.denied, each.denied + each.allowed) == (len(denied), len(own))
        assert (each.first_at, each.last_at) == (own[0].time, own[-1].time)
        assert (each.allows, each.allows_since) == (None, None)
    assert found.names == len({record.name for _, record in known if record.name})
    assert found.records_since == known[0][1].time
    assert found.size_bytes > 10_000
    assert found.files == 0


def test_an_empty_store(store: Store) -> None:
    found = holdings(store)
    assert (found.gateways, found.subjects, found.names) == ((), 0, 0)
    assert found.records_since is None
