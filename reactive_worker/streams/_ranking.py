"""What `prioritise` keeps its candidates in: bounded, one entry a row, best first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Protocol

from reactive_worker.models import Candidate, Demand
from reactive_worker.streams._priority import PriorityKey, default_priority, take_room
from reactive_worker.streams._shelves import Shelves


class Ranking(Protocol):
    """The order in which `prioritise` hands out candidates; made anew for each subscription."""

    def offer(self, candidate: Candidate) -> Sequence[Candidate]:
        """Take one in; returns those that have no place any more, perhaps itself.

        A row is there once: a newer attempt or a changed row replaces the entry, an older one is ignored.
        """
        ...

    def settle(self, id: str) -> bool:
        """Remove one that was claimed, or is gone; returns whether it was there."""
        ...

    def limit(self, worst: Candidate | None) -> Sequence[Candidate]:
        """Refuse what ranks after `worst` from now on (None: nothing); returns those this throws out."""
        ...

    def window(self, demand: Demand, size: int) -> list[Candidate]:
        """The best `size` that fit the demand, best first; they stay."""
        ...

    def __contains__(self, id: object) -> bool: ...

    def __len__(self) -> int: ...


class SortedRanking:
    """Strictly by a key.

    Kept in a sorted list, not a heap: the best `window` are read in order again and again while they stay,
    the worst falls out at the other end, and the horizon is a cut. An insertion is a search and a move of a
    few kilobytes, whatever waits in the database: 100,000 offers to a ranking of 1,000 take a fraction of a
    second.

    Parameters
    ----------
    capacity:
        The most candidates kept.
    key:
        What they are ordered by, smallest first; equal ones in the order of arrival. None: as the database
        orders them; only then `limit` has an effect, since the database's horizon says nothing about another
        order.
    """

    def __init__(self, capacity: int, key: PriorityKey | None = None) -> None:
        self._key = key or default_priority
        self._follows_database = key is None
        self._shelves = Shelves(capacity, self._key)
        self._horizon: Any = None

    def offer(self, candidate: Candidate) -> Sequence[Candidate]:
        if self._horizon is not None and self._horizon < self._key(candidate):
            self._shelves.discard(candidate.id)
            return (candidate,)
        return self._shelves.put(None, candidate)

    def settle(self, id: str) -> bool:
        return self._shelves.discard(id)[0]

    def limit(self, worst: Candidate | None) -> Sequence[Candidate]:
        if not self._follows_database:
            return ()
        self._horizon = None if worst is None else self._key(worst)
        if self._horizon is None:
            return ()
        ranked = self._shelves.shelf(None)
        cut = bisect_right(ranked, self._horizon, key=lambda entry: entry[0])
        beyond = [entry[2] for entry in ranked[cut:]]
        for candidate in reversed(beyond):
            self._shelves.discard(candidate.id)
        return beyond

    def window(self, demand: Demand, size: int) -> list[Candidate]:
        room = dict(demand.per_type)
        chosen: list[Candidate] = []
        for _, _, candidate in self._shelves.shelf(None):
            if len(chosen) >= size:
                break
            if take_room(room, candidate):
                chosen.append(candidate)
        return chosen

    def __contains__(self, id: object) -> bool:
        return id in self._shelves

    def __len__(self) -> int:
        return len(self._shelves)
