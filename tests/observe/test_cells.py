from __future__ import annotations

from itertools import chain

from egressproxy.observe.cells import (
    HELLO_BOUNDS_BYTES,
    LATENCY_BOUNDS_S,
    LAYOUT,
    Latency,
    LookupOutcome,
)
from egressproxy.resolve.resolver import Lookup


def test_no_two_things_share_a_cell() -> None:
    keyed = (LAYOUT.flows, LAYOUT.would_deny, LAYOUT.active, LAYOUT.lookups, LAYOUT.kernel)
    recorded = (LAYOUT.names, LAYOUT.review, LAYOUT.export_lost)
    cells = list(chain(*(each.values() for each in (*keyed, *recorded))))
    cells += [LAYOUT.bytes_up, LAYOUT.bytes_down, LAYOUT.longest_stall_ns]
    cells += [LAYOUT.log_dropped, LAYOUT.log_folded, LAYOUT.log_errors]
    histograms = [(LAYOUT.hello, len(HELLO_BOUNDS_BYTES))]
    histograms += [(LAYOUT.latencies[each], len(LATENCY_BOUNDS_S[each])) for each in Latency]
    for first, bounds in histograms:
        cells += range(first, first + bounds + 2)
    assert sorted(cells) == list(range(LAYOUT.size))


def test_the_resolver_s_words_are_the_counters_words() -> None:
    assert {outcome.value for outcome in Lookup} == {outcome.value for outcome in LookupOutcome}
