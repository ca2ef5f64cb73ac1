from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from egressproxy.errors import ServiceError
from egressproxy.observe.cells import (
    ReloadOutcome,
    ReviewCount,
)
from egressproxy.observe.counters import Counters
from egressproxy.observe.record import Plane
from egressproxy.policy.tag_edition import DatedBy, TagEdition
from egressproxy.policy.verdict import Action, Reason

WORKER = """
import sys
from egressproxy.observe.counters import Counters
from egressproxy.observe.record import Plane
from egressproxy.policy.verdict import Action, Reason
fd, index = int(sys.argv[1]), int(sys.argv[2])
row = Counters.attach(fd, 2).worker(index)
for _ in range(1000):
    row.flow(Plane.EXPLICIT, Action.DENY, Reason.NO_SNI)
    row.active(Plane.EXPLICIT, 1)
    row.bytes_moved(10, 100)
row.stall_s(0.5 + index)
"""


def test_processes_count_into_one_mapping() -> None:
    counters = Counters.create(2)
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WORKER, str(counters.fd), str(index)],
            pass_fds=[counters.fd],
        )
        for index in range(2)
    ]
    assert [worker.wait(30) for worker in workers] == [0, 0]
    totals = counters.totals()
    assert totals.flows[Plane.EXPLICIT, Action.DENY, Reason.NO_SNI] == 2000
    assert sum(totals.flows.values()) == 2000
    assert totals.active[Plane.EXPLICIT] == counters.active_total() == 2000
    assert (totals.bytes_up, totals.bytes_down) == (20_000, 200_000)
    assert totals.longest_stall_s == 1.5
    counters.close()


def test_a_dead_worker_s_totals_stay_and_its_gauges_go() -> None:
    counters = Counters.create(2)
    for index in range(2):
        row = counters.worker(index)
        row.flow(Plane.TRANSPARENT, Action.ALLOW, Reason.RULE)
        row.active(Plane.TRANSPARENT, 5)
        row.stall_s(2.0 - index)
    counters.restarted(0)
    totals = counters.totals()
    assert totals.flows[Plane.TRANSPARENT, Action.ALLOW, Reason.RULE] == 2
    assert counters.active_total() == 5
    assert totals.longest_stall_s == 1.0
    assert totals.restarts == 1
    counters.worker(0).flow(Plane.TRANSPARENT, Action.ALLOW, Reason.RULE)
    assert counters.totals().flows[Plane.TRANSPARENT, Action.ALLOW, Reason.RULE] == 3


def test_what_the_supervisor_says() -> None:
    counters = Counters.create(1)
    assert counters.totals().policy_digest == ""
    counters.set_policy("ab" * 32, 1_790_000_000.5)
    counters.reloaded(ReloadOutcome.OK)
    counters.reloaded(ReloadOutcome.REFUSED)
    counters.reloaded(ReloadOutcome.REFUSED)
    totals = Counters.attach(os.dup(counters.fd), 1).totals()
    assert totals.policy_digest == "ab" * 32
    assert totals.policy_loaded_at == 1_790_000_000.5
    assert totals.reloads == {
        ReloadOutcome.OK: 1,
        ReloadOutcome.REFUSED: 2,
        ReloadOutcome.FAILED: 0,
    }
    assert sum(totals.flows.values()) == 0, "the header is not a row"


def test_service_tags() -> None:
    counters = Counters.create(1)
    assert counters.totals().tags_dated == 0
    for by in DatedBy:
        edition = TagEdition(Path("tags.json"), "Public", 374, 1_790_000_000.5, by)
        counters.set_service_tags(edition)
        totals = Counters.attach(os.dup(counters.fd), 1).totals()
        assert totals.tags_dated == 1_790_000_000.5
        assert totals.tags_dated_by is by
        assert totals.tags_change_number == 374
    counters.set_service_tags(None)
    assert (counters.totals().tags_dated, counters.totals().tags_change_number) == (0, 0)


def test_a_digest_has_one_size() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        Counters.create(1).set_policy("ab" * 31, 0)


def test_attach_refuses_what_is_not_its_own() -> None:
    counters = Counters.create(2)
    with pytest.raises(ServiceError, match="3 workers"):
        Counters.attach(counters.fd, 3)
    counters._cells[0] += 1  # another version
    with pytest.raises(ServiceError, match="does not hold"):
        Counters.attach(counters.fd, 2)


def test_the_mapping_cannot_be_shrunk() -> None:
    counters = Counters.create(1)
    with pytest.raises(PermissionError):
        os.ftruncate(counters.fd, 0)


def test_the_supervisor_has_a_row_of_its_own() -> None:
    counters = Counters.create(2)
    row = counters.supervisor()
    row.flow(Plane.NETWORK, Action.DENY, Reason.DEFAULT_DENY)
    for index in range(2):
        counters.restarted(index)
        counters.worker(index).flow(Plane.NETWORK, Action.DENY, Reason.DEFAULT_DENY)
    assert counters.totals().flows[Plane.NETWORK, Action.DENY, Reason.DEFAULT_DENY] == 3
    assert counters.active_total() == 0


def test_closed_while_a_row_is_held() -> None:
    counters = Counters.create(1)
    row = counters.supervisor()
    counters.close()
    row.kernel_lost(1)  # of a mapping that lives as long as this


def test_the_recorder_has_a_row_of_its_own() -> None:
    counters = Counters.create(2)
    counters.recorder().review(ReviewCount.STORED, 5)
    counters.recorder().review(ReviewCount.NEW_NAMES)
    counters.supervisor().review(ReviewCount.RESTARTS)
    counters.worker(1).review_dropped(3)
    counters.restarted(1)
    assert {what: count for what, count in counters.totals().review.items() if count} == {
        ReviewCount.STORED: 5,
        ReviewCount.NEW_NAMES: 1,
        ReviewCount.RESTARTS: 1,
        ReviewCount.DROPPED: 3,
    }


@pytest.mark.parametrize("index", [-1, 2, 3])
def test_a_row_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError):
        Counters.create(2).worker(index)


def test_no_workers() -> None:
    with pytest.raises(ValueError, match="0 workers"):
        Counters.create(0)
