"""A reload is held against the flows of the last day, as a real store has them."""

from __future__ import annotations

import io
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from egressproxy.errors import StoreError
from egressproxy.observe.record import FlowRecord, NameSource, Plane
from egressproxy.policy.verdict import Action, Pass, Reason
from egressproxy.review import gate as review_gate
from egressproxy.review.bounds import Bounds
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from egressproxy.service.generation import load_generation
from egressproxy.service.journal import configure_journal
from egressproxy.service.open_flows import OpenFlow
from egressproxy.service.options import RunOptions
from egressproxy.service.reload_gate import ReloadGate, reload_gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from egressproxy.service.generation import Generation

pytestmark = pytest.mark.anyio

POLICY = """\
version: 1
cloud: AzureCloud
rules:
  - {name: one, to: [one.test], ports: [https]}
  - {name: two, to: [two.test], ports: [https]}
"""


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A store with three flows to one.test and two to two.test, of this gateway and another."""
    path = str(tmp_path / "review.db")
    flow = FlowRecord(
        time.time() - 60,
        "1-1",
        40000,
        Action.ALLOW,
        Reason.RULE,
        Plane.TRANSPARENT,
        "tls",
        "10.240.0.4",
        443,
        rule="rules/one",
        decided_by=Pass.APPLICATION,
        name="one.test",
        name_source=NameSource.SNI,
    )
    with open_store(path) as store:
        for gateway in ("hub", "other"):
            flows = [*[flow] * 3, *[flow._replace(name="two.test")] * 2]
            Writer(store, gateway=gateway, bounds=Bounds()).add(flows)
    return path


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Generation]:
    path = tmp_path / "old.yaml"
    path.write_text(POLICY)
    with closing(load_generation(path, 1, allow_outside=False)) as generation:
        yield generation


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Generation]:
    path = tmp_path / "new.yaml"
    path.write_text(POLICY.replace("two.test", "three.test"))
    with closing(load_generation(path, 2, allow_outside=False)) as generation:
        yield generation


async def test_more_than_is_accepted(place: str, old: Generation, new: Generation) -> None:
    objection = await ReloadGate(place, "hub", 1).objection(old, new)
    assert objection == (
        "it would newly deny 2 of 5 flows: two.test:443 (2); 1 are accepted"
        " (hint: egressproxy reload --force)"
    )


@pytest.mark.parametrize(("gateway", "most"), [("hub", 2), ("unheard of", 0)])
async def test_as_much_as_is_accepted(
    place: str, old: Generation, new: Generation, gateway: str, most: int
) -> None:
    assert await ReloadGate(place, gateway, most).objection(old, new) == ""
    assert await ReloadGate(place, "hub", 0).objection(old, old) == ""


async def test_a_store_that_is_too_slow_gives_no_answer(
    place: str, old: Generation, new: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = review_gate.newly_denied
    monkeypatch.setattr(review_gate, "newly_denied", lambda *a, **k: real(*a, **k, budget_s=-1.0))
    with pytest.raises(StoreError, match="too slow: only 0 flows"):
        await ReloadGate(place, "hub", 0).objection(old, new)


@pytest.mark.parametrize(("gateway", "most_subjects"), [("hub", 2), ("unheard of", 100)])
async def test_an_answer_about_few_or_no_flows_is_told(
    place: str,
    old: Generation,
    new: Generation,
    monkeypatch: pytest.MonkeyPatch,
    gateway: str,
    most_subjects: int,
) -> None:
    said = io.StringIO()
    configure_journal(said)
    monkeypatch.setattr(review_gate, "MAX_SUBJECTS", most_subjects)
    assert await ReloadGate(place, gateway, 2).objection(old, new) == ""
    assert "not every flow of the last day" in said.getvalue()
    structlog.reset_defaults()


OPEN: dict[str, tuple[dict[str, Any], int]] = {
    "a tunnel since last week": ({"since": time.time() - 7 * 86400}, 1),
    "a tunnel since now": ({}, 1),
    "what the new policy allows": ({"name": "one.test"}, 0),
    "audited today, so that it has a record": ({"would_deny": True}, 0),
    "audited last week": ({"would_deny": True, "since": time.time() - 7 * 86400}, 1),
    "not judged yet": ({"stage": "sniff", "reason": ""}, 0),
    "on its way": ({"stage": "dial"}, 0),
    "what the kernel forwards, by no rule": (
        {"stage": "forward", "worker": None, "since": None, "reason": ""},
        0,
    ),
}


@pytest.mark.parametrize(("fields", "more"), OPEN.values(), ids=OPEN)
async def test_open_flows_count_though_they_have_no_record_yet(
    place: str, old: Generation, new: Generation, fields: dict[str, Any], more: int
) -> None:
    async def opened() -> list[OpenFlow]:
        return [open_flow(**fields)]

    objection = await ReloadGate(place, "hub", 0, opened).objection(old, new)
    assert objection.startswith(f"it would newly deny {2 + more} of ")


def open_flow(**fields: Any) -> OpenFlow:
    return OpenFlow(
        **{
            "worker": 0,
            "flow_id": "0-1-1",
            "plane": "transparent",
            "stage": "relay",
            "protocol": "tls",
            "since": time.time() - 60,
            "age_s": 60.0,
            "idle_s": 0.0,
            "src_ip": "10.240.0.4",
            "src_port": 40000,
            "dst_ip": "20.1.2.3",
            "dst_port": 443,
            "name": "two.test",
            "alpn": (),
            "tls_versions": (),
            "rule": "rules/two",
            "reason": "rule",
            "would_deny": False,
            "dialled_ip": "20.1.2.3",
            "bytes_up": 1,
            "bytes_down": 1,
            **fields,
        }
    )


async def test_without_a_store_there_is_no_answer(
    tmp_path: Path, old: Generation, new: Generation
) -> None:
    with pytest.raises(StoreError, match="no review store"):
        await ReloadGate(str(tmp_path / "none.db"), "hub", 0).objection(old, new)


async def test_a_gate_where_one_is_wanted(tmp_path: Path) -> None:
    def options(**given: Any) -> RunOptions:
        return RunOptions(policy=tmp_path, listeners=(), workers=1, gateway="hub", **given)

    assert reload_gate(options(review_store="r.db")) is None
    assert reload_gate(options(review_max_newly_denied=0)) is None
    wanted = options(review_store="r.db", review_max_newly_denied=0)
    assert reload_gate(wanted) == ReloadGate("r.db", "hub", 0)
