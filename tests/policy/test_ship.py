"""Shipping: by descriptor to another process, sealed, in small chunks."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from egressproxy.policy.compile import compile_policy
from egressproxy.policy.known import known_of
from egressproxy.policy.rules import Mode
from egressproxy.policy.ship import receive, ship
from egressproxy.policy.verdict import Reason
from tests.policy.building import NOON, TODAY, flow, name_list, networks, policy, rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from egressproxy.policy.ruleset import Ruleset


def big() -> Ruleset:
    rules = [
        rule(f"r{i}", f"a{i}.test", f"*.b{i}.test", sources=f"10.{i >> 8}.{i & 255}.0/24")
        for i in range(2000)
    ]
    many = rule("many", lists=(name_list(*(f"n{i}.test" for i in range(20_000)), "*.w.test"),))
    groups = tuple((f"g{i}", networks(f"10.0.{i}.0/24")) for i in range(200))
    return compile_policy(policy(*rules, many, sources=groups))


def answers(ruleset: Ruleset) -> list[Any]:
    return [
        ruleset.decide(flow(name, src=src), NOON)
        for name in ("a7.test", "x.b1999.test", "n19999.test", "x.w.test", "none.test")
        for src in ("10.0.7.1", "10.7.207.1", "192.0.2.1")
    ]


def _worker(chunks: Iterable[bytes], fd: int, out: Any) -> None:
    ruleset = receive(chunks, (fd,))
    out.send((answers(ruleset), ruleset.source_group("10.0.7.1"), ruleset.digest))


def test_in_another_process() -> None:
    here = big()
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    with ship(here) as shipment:
        worker = context.Process(target=_worker, args=(shipment.chunks, shipment.fds[0], theirs))
        worker.start()
        there, group, digest = mine.recv()
        worker.join()
    assert there == answers(here)
    assert (group, digest) == ("g7", here.digest)


def test_known_names_go_along_in_a_memfd_of_their_own() -> None:
    found = policy(mode=Mode.WARN_ON_NEW, warn_until=TODAY)
    known = known_of((f"n{i}.test" for i in range(1000)), ["10.0.0.9"])
    before = open_descriptors()
    with ship(compile_policy(found).with_known(known)) as shipment:
        assert len(shipment.fds) == 2
        with pytest.raises(PermissionError):
            os.write(shipment.fds[1], b"x")
        there = receive(shipment.chunks, shipment.fds)
    received = there.program.known
    assert received is not None
    assert (received.digest, received.crowded) == (known.digest, known.crowded)
    assert there.decide(flow("n999.test"), NOON).reason is Reason.DEFAULT_DENY
    assert there.decide(flow("n1000.test"), NOON).reason is Reason.NEW_NAME
    assert there.decide(flow("n1000.test", src="10.0.0.9"), NOON).reason is Reason.DEFAULT_DENY
    assert received.buffer == known.buffer
    del there, received
    assert open_descriptors() == before


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_are_closed_and_the_mapping_lives_on() -> None:
    before = open_descriptors()
    with ship(big()) as shipment:
        there = receive(shipment.chunks, shipment.fds)
    assert answers(there) == answers(big())
    del there
    assert open_descriptors() == before


def test_no_receiver_can_change_what_others_read() -> None:
    with ship(big()) as shipment:
        with pytest.raises(PermissionError):
            os.write(shipment.fds[0], b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(shipment.fds[0], 1)


def test_chunks_are_small_and_each_is_followed_by_a_rest() -> None:
    with ship(big()) as shipment:
        rests = 0

        def pause() -> None:
            nonlocal rests
            rests += 1

        receive(shipment.chunks, shipment.fds, pause=pause)
        assert rests == len(shipment.chunks) - 1 > 15
        slowest = 0.0
        for chunk in shipment.chunks[1:]:
            taken = []
            for _ in range(5):
                start = time.thread_time()
                pickle.loads(chunk)
                taken.append(time.thread_time() - start)
            slowest = max(slowest, min(taken))
        assert slowest < 0.01, "a generous multiple of the millisecond it should take"


def test_a_list_of_names_makes_no_chunks() -> None:
    many = rule("many", lists=(name_list(*(f"n{i}.test" for i in range(50_000))),))
    with ship(compile_policy(policy(many))) as shipment:
        assert sum(map(len, shipment.chunks)) < 100_000
        there = receive(shipment.chunks, shipment.fds)
    assert there.decide(flow("n49999.test"), NOON).rule_id == "many"


def test_received_rules_carry_what_a_flow_needs() -> None:
    one = rule("a", "a.test", addresses=networks("10.50.0.0/24"), sources="10.0.0.0/8")
    with ship(compile_policy(policy(*[one] * 20))) as shipment:
        rules = receive(shipment.chunks, shipment.fds).program.rules
    assert (len(rules), len(rules[3:5]), rules[-1].id) == (20, 2, "a")
    assert rules[0].addresses == one.addresses
    assert (rules[0].patterns, rules[0].sources, rules[0].origin) == ((), (), one.origin)
    with pytest.raises(IndexError):
        rules[20]


def test_an_empty_policy() -> None:
    with ship(compile_policy(policy())) as shipment:
        there = receive(shipment.chunks, shipment.fds)
    assert not there.decide(flow("a.test"), NOON).is_allow


def test_shipped_again() -> None:
    with ship(big()) as first, ship(receive(first.chunks, first.fds)) as second:
        assert answers(receive(second.chunks, second.fds)) == answers(big())


def test_a_memfd_that_cannot_be_sealed_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no seals here")

    ruleset = compile_policy(policy())
    before = open_descriptors()
    monkeypatch.setattr("fcntl.fcntl", refuse)
    with pytest.raises(OSError, match="no seals"):
        ship(ruleset)
    assert open_descriptors() == before
