"""``ship`` and ``receive``: a compiled policy on its way from the supervisor to the workers.

All that grows with the policy lies in one sealed memfd, which every worker maps: to attach and to
drop it costs the same for sixty names and for a million. Rules are read from it when they first
match. The little rest travels as chunks that each take at most about a millisecond to read, so that
a worker's background thread can receive while its engine runs.

Memfd: table · words · gate of each rule · ends of the rule blocks · rule blocks (pickled).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, overload

from egressproxy.policy.known import Known
from egressproxy.policy.matcher import Matcher
from egressproxy.policy.memo import Memo
from egressproxy.policy.program import Facts, Gate, Program
from egressproxy.policy.rules import Rule
from egressproxy.policy.ruleset import Ruleset
from egressproxy.policy.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from egressproxy.policy.table import TableLayout

_BLOCK: Final = 4
"""Rules read at once: some 50 us, once in a rule's life."""

_SLICE: Final = 128
"""Gates in a chunk: about 0.5 ms."""

_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class Shipment:
    """What to send: every chunk in order, and every descriptor (SCM_RIGHTS) in order.

    The shipment owns ``fds`` until ``close``; keep it open for workers that start later.
    """

    chunks: tuple[bytes, ...]
    fds: tuple[int, ...]

    def close(self) -> None:
        """Close the descriptors; rulesets that were received from them live on."""
        for fd in self.fds:
            os.close(fd)

    def __enter__(self) -> Shipment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Head:
    """The first chunk; places are octets from the start of the memfd."""

    facts: Facts
    anywhere: int | None
    words_at: int
    words: int
    rules: int
    gate_of_at: int
    ends_at: int
    blocks_at: int
    size: int
    known: _KnownHead | None


@dataclass(frozen=True, slots=True)
class _KnownHead:
    """What of ``Known`` is not its table, which has a memfd of its own."""

    layout: TableLayout
    crowded: frozenset[str]
    digest: str


class RuleBlocks(Sequence[Rule]):
    """Rules in a mapping, read in blocks when one of them is asked for.

    They carry what a flow needs; what only the matcher reads (patterns, lists, networks, source
    networks) is left out.
    """

    def __init__(self, mapping: mmap.mmap, head: _Head) -> None:
        self._mapping = mapping
        self._rules = head.rules
        self._at = head.blocks_at
        self._ends = memoryview(mapping)[head.ends_at : head.blocks_at].cast("Q")
        self._read: Memo[int, tuple[Rule, ...]] = Memo(256)

    def __len__(self) -> int:
        return self._rules

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Rule]: ...
    def __getitem__(self, index: int | slice) -> Rule | Sequence[Rule]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._rules))]
        if not -self._rules <= index < self._rules:
            raise IndexError(index)
        block, place = divmod(index % self._rules, _BLOCK)
        rules = self._read.get(block) or self._read.put(block, self._load(block))
        return rules[place]

    def _load(self, block: int) -> tuple[Rule, ...]:
        start = self._at + (self._ends[block - 1] if block else 0)
        rules: tuple[Rule, ...] = pickle.loads(  # noqa: S301 - sealed by our own supervisor
            self._mapping[start : self._at + self._ends[block]]
        )
        return rules


def ship(ruleset: Ruleset) -> Shipment:
    """Pack a ruleset for any number of workers."""
    program = ruleset.program
    matcher = program.matcher
    layout = matcher.table.layout
    words = array("I", matcher.words)
    gate_of = array("I", program.gate_of)
    blocks = [
        pickle.dumps(tuple(map(_light, program.rules[start : start + _BLOCK])))
        for start in range(0, len(program.rules), _BLOCK)
    ]
    words_at = -(-layout.size // 8) * 8
    gate_of_at = words_at + 4 * len(words)
    ends_at = -(-(gate_of_at + 4 * len(gate_of)) // 8) * 8
    blocks_at = ends_at + 8 * len(blocks)
    head = _Head(
        facts=program.facts,
        anywhere=program.anywhere,
        words_at=words_at,
        words=len(words),
        rules=len(program.rules),
        gate_of_at=gate_of_at,
        ends_at=ends_at,
        blocks_at=blocks_at,
        size=blocks_at + sum(map(len, blocks)),
        known=_known_head(program.known),
    )
    ends = array("Q", accumulate(map(len, blocks)))
    sections = {
        0: matcher.table.buffer[: layout.size],
        words_at: words.tobytes(),
        gate_of_at: gate_of.tobytes(),
        ends_at: ends.tobytes(),
        blocks_at: b"".join(blocks),
    }
    chunks = [pickle.dumps(head)]
    chunks += (pickle.dumps(part) for part in _slices(program.gates))
    chunks += (pickle.dumps(part) for part in _slices(program.groups))
    fds = [_sealed_memfd(sections, head.size)]
    if program.known is not None:
        try:
            fds.append(_sealed_memfd({0: program.known.buffer}, program.known.layout.size))
        except BaseException:
            os.close(fds[0])
            raise
    return Shipment(tuple(chunks), tuple(fds))


def _known_head(known: Known | None) -> _KnownHead | None:
    return None if known is None else _KnownHead(known.layout, known.crowded, known.digest)


def _light(rule: Rule) -> Rule:
    sources = None if rule.sources is None else ()
    return replace(rule, patterns=(), lists=(), networks=(), sources=sources)


def _slices(items: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(items), _SLICE):
        yield tuple(items[start : start + _SLICE])


def _sealed_memfd(sections: dict[int, bytes], size: int) -> int:
    fd = os.memfd_create("egressproxy-policy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        with open(fd, "wb", closefd=False) as file:
            for place, octets in sections.items():
                file.seek(place)
                file.write(octets)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _rest() -> None:
    time.sleep(0.0002)


def receive(
    chunks: Iterable[bytes], fds: Sequence[int], *, pause: Callable[[], None] = _rest
) -> Ruleset:
    """Unpack; ``pause`` is called between chunks and gives the engine's thread its turn.

    The descriptors are mapped, not kept: the caller closes its ``fds`` afterwards.
    """
    received = iter(chunks)
    head: _Head = pickle.loads(next(received))  # noqa: S301 - from our own supervisor
    gates: list[Gate] = []
    groups: list[tuple[int, str]] = []
    for chunk in received:
        pause()
        part = pickle.loads(chunk)  # noqa: S301 - from our own supervisor
        (gates if isinstance(part[0], Gate) else groups).extend(part)
    mapping = mmap.mmap(fds[0], head.size, access=mmap.ACCESS_READ)
    view = memoryview(mapping)
    words = view[head.words_at : head.words_at + 4 * head.words].cast("I")
    gate_of = view[head.gate_of_at : head.gate_of_at + 4 * head.rules].cast("I")
    facts = head.facts
    return Ruleset(
        Program(
            facts=facts,
            rules=RuleBlocks(mapping, head),
            gates=gates,
            gate_of=gate_of,
            groups=groups,
            anywhere=head.anywhere,
            matcher=Matcher(Table(mapping, facts.layout), words, facts.depths),
            known=None if head.known is None else _known(head.known, fds[1]),
        )
    )


def _known(head: _KnownHead, fd: int) -> Known:
    mapping = mmap.mmap(fd, head.layout.size, access=mmap.ACCESS_READ)
    return Known(mapping, head.layout, head.crowded, head.digest)
