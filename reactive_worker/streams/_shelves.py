"""Candidates put aside by key: each key a sorted shelf, all of them bounded together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from reactive_worker.models import Candidate
from reactive_worker.streams._priority import PriorityKey, default_priority

#: (rank, number of arrival, candidate)
ShelfEntry = tuple[Any, int, Candidate]


def _rank(entry: ShelfEntry) -> Any:
    return entry[0]


def _place(entry: ShelfEntry) -> tuple[Any, int]:
    return entry[:2]


class Shelves:
    """What `fair_by` orders by, and what the operators hold back.

    A row is there once; the newest word on it counts. When there are more than `capacity`, the longest shelf
    loses its worst, so that one key with a thousand rows pushes out nobody else's.

    >>> from reactive_worker.testing.marbles import candidate
    >>> shelves = Shelves(capacity=2)
    >>> shelves.put("x", candidate("a", priority=1)), shelves.put("x", candidate("b", priority=2))
    ((), ())
    >>> [row.id for row in shelves.put("y", candidate("c"))]
    ['a']
    >>> shelves.take("y").id, shelves.take("y")
    ('c', None)
    """

    def __init__(self, capacity: int, key: PriorityKey | None = None) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity!r}")
        self._capacity = capacity
        self._key = key or default_priority
        self._shelves: dict[Hashable, list[ShelfEntry]] = {}
        self._where: dict[str, tuple[Hashable, ShelfEntry]] = {}
        # Shelves by length. One put or take changes a length by one, so the longest is always at hand.
        self._by_length: dict[int, dict[Hashable, None]] = {}
        self._longest = 0
        self._number = 0

    def put(self, group: Hashable, candidate: Candidate) -> Sequence[Candidate]:
        """Put one on its shelf; returns those that have no place any more, perhaps itself."""
        known = self._where.get(candidate.id)
        if known is not None:
            before = known[1][2]
            if candidate.attempt < before.attempt or (candidate == before and group == known[0]):
                return ()
        shelf = self._shelves.get(group, [])
        rank = self._key(candidate)
        # Raises here, before anything has changed, where keys do not compare.
        index = bisect_right(shelf, rank, key=_rank)
        if known is not None:
            self._remove(*known)
            shelf = self._shelves.get(group, [])
            index = bisect_right(shelf, rank, key=_rank)
        self._shelves[group] = shelf
        self._number += 1
        entry: ShelfEntry = (rank, self._number, candidate)
        shelf.insert(index, entry)
        self._where[candidate.id] = (group, entry)
        self._measure(group, len(shelf) - 1, len(shelf))
        if len(self._where) <= self._capacity:
            return ()
        fullest = next(iter(self._by_length[self._longest]))
        worst = self._shelves[fullest][-1]
        self._remove(fullest, worst)
        return (worst[2],)

    def take(self, group: Hashable) -> Candidate | None:
        """Take the best off a shelf."""
        shelf = self._shelves.get(group)
        if not shelf:
            return None
        entry = shelf[0]
        self._remove(group, entry)
        return entry[2]

    def discard(self, id: str) -> tuple[bool, Hashable]:
        """Remove a row; returns whether it was there, and on which shelf."""
        found = self._where.get(id)
        if found is None:
            return False, None
        self._remove(*found)
        return True, found[0]

    def shelf(self, group: Hashable) -> Sequence[ShelfEntry]:
        """What is on a shelf, best first."""
        return self._shelves.get(group, ())

    def groups(self) -> Iterable[Hashable]:
        """The keys of the shelves that are not empty."""
        return self._shelves.keys()

    def __contains__(self, id: object) -> bool:
        return id in self._where

    def __len__(self) -> int:
        return len(self._where)

    def _remove(self, group: Hashable, entry: ShelfEntry) -> None:
        shelf = self._shelves[group]
        # (rank, number) is unique, so the search ends at the entry itself.
        del shelf[bisect_left(shelf, entry[:2], key=_place)]
        del self._where[entry[2].id]
        self._measure(group, len(shelf) + 1, len(shelf))
        if not shelf:
            del self._shelves[group]

    def _measure(self, group: Hashable, before: int, after: int) -> None:
        if before:
            same = self._by_length[before]
            del same[group]
            if not same:
                del self._by_length[before]
        if after:
            self._by_length.setdefault(after, {})[group] = None
        if after > self._longest or self._longest not in self._by_length:
            self._longest = after
