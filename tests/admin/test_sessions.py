"""Who is logged in, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egressproxy.admin.sessions import (
    ID_CHARACTERS,
    MAX_AGE_S,
    MAX_IDLE_S,
    MAX_SESSIONS,
    Right,
    Sessions,
    new_id,
)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(clock)


def test_found_with_its_right_until_it_ends(sessions: Sessions) -> None:
    id_ = sessions.begin(Right.READ)
    found = sessions.find(id_)
    assert found is not None
    assert found.right is Right.READ
    sessions.end(id_)
    assert sessions.find(id_) is None


def test_ids_are_random_and_not_kept(sessions: Sessions) -> None:
    ids = {sessions.begin(Right.CHANGE) for _ in range(MAX_SESSIONS)}
    assert len(ids) == MAX_SESSIONS
    assert all(len(id_) == ID_CHARACTERS for id_ in ids)
    assert not any(id_ in repr(sessions) for id_ in ids)


def test_unseen_for_long(sessions: Sessions, clock: Clock) -> None:
    id_ = sessions.begin(Right.READ)
    clock.now += MAX_IDLE_S
    assert sessions.find(id_) is not None
    clock.now += MAX_IDLE_S + 1
    assert sessions.find(id_) is None
    assert len(sessions) == 0


def test_seen_all_the_time_and_over_all_the_same(sessions: Sessions, clock: Clock) -> None:
    id_ = sessions.begin(Right.READ)
    while clock.now + MAX_IDLE_S / 2 <= MAX_AGE_S:
        clock.now += MAX_IDLE_S / 2
        assert sessions.find(id_) is not None
    clock.now = MAX_AGE_S + 1
    assert sessions.find(id_) is None


def test_the_longest_unseen_makes_room(sessions: Sessions) -> None:
    first, second = sessions.begin(Right.READ), sessions.begin(Right.READ)
    for _ in range(MAX_SESSIONS - 2):
        sessions.begin(Right.READ)
    assert sessions.find(first) is not None  # seen just now
    sessions.begin(Right.READ)
    assert sessions.find(second) is None
    assert sessions.find(first) is not None
    assert len(sessions) == MAX_SESSIONS


@given(st.text(max_size=80))
def test_nothing_made_up_is_a_session(text: str) -> None:
    sessions = Sessions()
    sessions.begin(Right.CHANGE)
    assert sessions.find(text) is None
    sessions.end(text)
    assert len(sessions) == 1


def test_form_tokens_belong_to_a_cookie_and_a_process(sessions: Sessions) -> None:
    mine, yours = new_id(), new_id()
    assert sessions.is_form_token(sessions.form_token(mine), mine)
    assert not sessions.is_form_token(sessions.form_token(yours), mine)
    assert not sessions.is_form_token("", mine)
    assert not sessions.is_form_token("\u00e9", mine)
    assert not sessions.is_form_token(sessions.form_token(""), "")
    assert not Sessions().is_form_token(sessions.form_token(mine), mine)
