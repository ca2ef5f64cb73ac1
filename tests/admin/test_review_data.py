"""Questions to the store: states instead of errors, bounds instead of queues."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from egressproxy.admin import review_data
from egressproxy.admin.review_data import MAX_WAITING, ReviewData, TroubleError
from egressproxy.review import queries
from egressproxy.review.bounds import Bounds
from egressproxy.review.model import Class, Filter
from egressproxy.review.store import open_store
from egressproxy.review.writer import Writer
from tests.admin.chromium import a_deny
from tests.admin.double import serving_supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from egressproxy.admin.review_data import Review
    from egressproxy.review.store import Store
    from tests.admin.double import FakeSupervisor

pytestmark = pytest.mark.anyio


@contextmanager
def data(folder: Path, *, store: str | None = None) -> Iterator[tuple[ReviewData, FakeSupervisor]]:
    with serving_supervisor(folder, store=store) as supervisor:
        made = ReviewData(supervisor.as_supervisor)
        try:
            yield made, supervisor
        finally:
            made.close()


@pytest.fixture
def filled(tmp_path: Path) -> str:
    """A store with two denies."""
    place = str(tmp_path / "review.db")
    with open_store(place) as store:
        writer = Writer(store, gateway="one", bounds=Bounds())
        writer.add([a_deny("mcr.microsoft.com"), a_deny("nobody.example")])
    return place


async def test_no_store_is_a_state_with_advice(tmp_path: Path) -> None:
    with data(tmp_path) as (asked, _):
        assert not asked.is_configured
        with pytest.raises(TroubleError) as caught:
            await asked.ask(queries.newest_id)
    assert caught.value.status == 200
    assert "--review-store" in caught.value.example


async def test_a_store_that_is_not_there_yet_is_found_later(tmp_path: Path) -> None:
    place = str(tmp_path / "later.db")
    with data(tmp_path, store=place) as (asked, _):
        with pytest.raises(TroubleError) as caught:
            await asked.ask(queries.newest_id)
        assert caught.value.status == 503
        assert caught.value.hint
        open_store(place).close()
        assert await asked.ask(queries.newest_id) == 0


async def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    place = tmp_path / "review.db"
    place.write_text("<html>" * 1000)
    with (
        data(tmp_path, store=str(place)) as (asked, _),
        pytest.raises(TroubleError, match="not a review store"),
    ):
        await asked.ask(queries.newest_id)


async def test_what_is_judged_follows_the_policy_in_force(tmp_path: Path, filled: str) -> None:
    def kinds(review: Review) -> dict[str | None, Class]:
        counts = queries.subjects(review.store, Filter())
        return {one.subject.name: review.classifier.finding(one.subject).kind for one in counts}

    with data(tmp_path, store=filled) as (asked, supervisor):
        assert (await asked.review(kinds))["nobody.example"] is Class.UNKNOWN
        first = await asked.review(lambda review: review.classifier)
        assert await asked.review(lambda review: review.classifier) is first
        supervisor.crew = None
        assert await asked.review(lambda review: review.policy) is None
        with pytest.raises(TroubleError, match="not loaded"):
            await asked.judge(lambda policy, _: policy)


async def test_the_ruleset_is_not_the_one_in_service(tmp_path: Path, filled: str) -> None:
    """A ruleset has memories that belong to one thread."""
    with data(tmp_path, store=filled) as (asked, supervisor):
        assert supervisor.crew
        ruleset = await asked.judge(lambda _, ruleset: ruleset)
        assert ruleset is not supervisor.crew.current.ruleset
        assert await asked.judge(lambda _, ruleset: ruleset) is ruleset
        threads = {await asked.judge(lambda *_: threading.get_ident()) for _ in range(5)}
        assert len(threads) == 1


async def test_too_many_questions_are_turned_away_and_the_rest_is_answered(
    tmp_path: Path, filled: str
) -> None:
    gate = threading.Event()

    def slow(_: Store) -> bool:
        return gate.wait(10)

    with data(tmp_path, store=filled) as (asked, _):
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(asked.ask(slow), name=f"question {n}") for n in range(MAX_WAITING)
            ]
            await asyncio.sleep(0)
            with pytest.raises(TroubleError, match="busy"):
                await asked.ask(queries.newest_id)
            gate.set()
        assert all(task.result() for task in tasks)
        assert await asked.ask(queries.newest_id) > 0


async def test_a_question_that_takes_too_long(
    tmp_path: Path, filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_data, "TIMEOUT_S", 0.01)
    gate = threading.Event()
    with data(tmp_path, store=filled) as (asked, _):
        with pytest.raises(TroubleError, match="no answer within"):
            await asked.ask(lambda _: gate.wait(10))
        gate.set()


async def test_a_fault_is_a_fault(tmp_path: Path, filled: str) -> None:
    with data(tmp_path, store=filled) as (asked, _):
        with pytest.raises(ZeroDivisionError):
            await asked.ask(lambda _: 1 // 0)
        assert await asked.ask(queries.newest_id) > 0


async def test_a_reader_sees_what_is_written_meanwhile(tmp_path: Path, filled: str) -> None:
    with data(tmp_path, store=filled) as (asked, _):
        before = await asked.ask(queries.newest_id)
        with open_store(filled) as store:
            Writer(store, gateway="one", bounds=Bounds()).add([a_deny("x.example")])
        assert await asked.ask(queries.newest_id) > before
