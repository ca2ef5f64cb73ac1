"""``Memo``: a bounded memory of answers whose eviction never stalls.

Three generations: answers enter the young one; when it is full it becomes the old one, and the one
before it is taken apart an entry at a time, one for every new answer. Nothing larger than one entry
is ever freed at once, and a flood of names that come once cannot push out those that come often for
longer than one miss each.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """At most three times ``limit`` answers; ``None`` cannot be one."""

    __slots__ = ("_dying", "_limit", "_old", "young")

    def __init__(self, limit: int = 8192) -> None:
        self._limit = limit
        self._old: dict[K, V] = {}
        self._dying: dict[K, V] = {}
        self.young: dict[K, V] = {}
        """The newest generation; a hot path may look here first by itself."""

    def get(self, key: K) -> V | None:
        """The answer, or ``None``; one that is found has its life renewed."""
        answer = self.young.get(key)
        if answer is None:
            answer = self._old.get(key)
            if answer is not None:
                self.put(key, answer)
        return answer

    def put(self, key: K, answer: V) -> V:
        """Remember an answer and give it back."""
        young = self.young
        young[key] = answer
        if self._dying:
            self._dying.popitem()
        if len(young) >= self._limit:
            self._dying = self._old
            self._old = young
            self.young = {}
        return answer

    def __len__(self) -> int:
        return len(self.young) + len(self._old) + len(self._dying)
