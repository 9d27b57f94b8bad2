"""What `prioritise` keeps its candidates in: bounded, one entry a row, best first."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from reactive_worker.models import Candidate, Demand

#: Gives what candidates are ordered by, smallest first; any values that compare with each other.
PriorityKey = Callable[[Candidate], Any]


def default_priority(candidate: Candidate) -> Any:
    """The database's own order: strictly by priority (higher first), then by age.

    >>> from datetime import UTC, datetime
    >>> default_priority(Candidate("1", "digest", 5, 0, *[datetime(2030, 1, 1, tzinfo=UTC)] * 2))[0]
    -5
    """
    return (-candidate.priority, candidate.available_at, candidate.id)


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


#: (rank, number of arrival, candidate)
_Entry = tuple[Any, int, Candidate]


def _rank(entry: _Entry) -> Any:
    return entry[0]


def _place(entry: _Entry) -> tuple[Any, int]:
    return entry[:2]


class SortedRanking:
    """Strictly by a key.

    A sorted list, not a heap: the best `window` are read in order again and again while they stay, the worst
    falls out at the other end, and the horizon is a cut. An insertion is a search in C and a move of a few
    kilobytes, whatever waits in the database: 100,000 offers to a ranking of 1,000 take a fraction of a
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
        self._capacity = capacity
        self._key = key or default_priority
        self._follows_database = key is None
        self._entries: list[_Entry] = []
        self._by_id: dict[str, _Entry] = {}
        self._number = 0
        self._horizon: Any = None

    def offer(self, candidate: Candidate) -> Sequence[Candidate]:
        known = self._by_id.get(candidate.id)
        if known is not None and (candidate.attempt < known[2].attempt or candidate == known[2]):
            return ()
        rank = self._key(candidate)
        # Equal ones stay in the order of arrival, hence the right end. Where a key cannot be compared this
        # raises, before anything has changed.
        index = bisect_right(self._entries, rank, key=_rank)
        if known is not None:
            index -= self._remove(known) < index
        if self._horizon is not None and self._horizon < rank:
            return (candidate,)
        fallen: tuple[Candidate, ...] = ()
        if len(self._entries) >= self._capacity:
            if index == len(self._entries):
                return (candidate,)
            fallen = (self._entries[-1][2],)
            self._remove(self._entries[-1])
        self._number += 1
        entry: _Entry = (rank, self._number, candidate)
        self._entries.insert(index, entry)
        self._by_id[candidate.id] = entry
        return fallen

    def settle(self, id: str) -> bool:
        entry = self._by_id.get(id)
        if entry is None:
            return False
        self._remove(entry)
        return True

    def limit(self, worst: Candidate | None) -> Sequence[Candidate]:
        if not self._follows_database:
            return ()
        self._horizon = None if worst is None else self._key(worst)
        if self._horizon is None:
            return ()
        cut = bisect_right(self._entries, self._horizon, key=_rank)
        beyond = [entry[2] for entry in self._entries[cut:]]
        del self._entries[cut:]
        for candidate in beyond:
            del self._by_id[candidate.id]
        return beyond

    def window(self, demand: Demand, size: int) -> list[Candidate]:
        room = dict(demand.per_type)
        chosen: list[Candidate] = []
        for _, _, candidate in self._entries:
            if len(chosen) >= size:
                break
            if take_room(room, candidate):
                chosen.append(candidate)
        return chosen

    def __contains__(self, id: object) -> bool:
        return id in self._by_id

    def __len__(self) -> int:
        return len(self._entries)

    def _remove(self, entry: _Entry) -> int:
        del self._by_id[entry[2].id]
        # (rank, number) is unique, so the search ends at the entry itself.
        index = bisect_left(self._entries, entry[:2], key=_place)
        del self._entries[index]
        return index


def take_room(room: dict[str, int], candidate: Candidate) -> bool:
    """Whether a candidate's type has room left; takes it. Types that are not listed have no limit."""
    left = room.get(candidate.agent_type)
    if left is None:
        return True
    if left <= 0:
        return False
    room[candidate.agent_type] = left - 1
    return True
