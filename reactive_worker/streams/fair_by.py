"""An order for `prioritise`: the tenants take turns, and no slot stays empty for fairness' sake."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Any

from reactive_worker.models import Candidate, Demand
from reactive_worker.streams.prioritise import Order
from reactive_worker.streams.priority import PriorityKey, take_room
from reactive_worker.streams.ranking import Ranking
from reactive_worker.streams.shelves import Shelves


def fair_by(
    group: Callable[[Candidate], Hashable],
    *,
    key: PriorityKey | None = None,
    weight: Callable[[Hashable], float] | None = None,
) -> Order:
    """Serve groups in turns, each group's candidates in their own order.

    ::

        waiting   a1 a2 a3 a4 a5 ... a9999   b1 b2   c1
        served    a1 b1 c1 a2 b2 a3 a4 a5 ...

    Work-conserving: whoever waits alone gets every slot. A group that comes back after a while neither has to
    wait for what it got before nor may make up for what it missed.

    Parameters
    ----------
    group:
        Whose candidate it is, as ``lambda c: c.owner_id``.
    key:
        The order within a group; default by priority, then by age. A priority never reaches across groups,
        but decides who begins where two have had the same.
    weight:
        The share of a group, in relation to others; default 1 for each.

    Returns
    -------
    What `prioritise` takes as its `order`. A turn counts when a candidate is settled, whoever ran it: a fleet
    is fair as a whole.

    Raises
    ------
    ValueError
        When a weight is not above 0, where `prioritise` reports errors of a key.

    Notes
    -----
    Fair among the candidates that are known here. Beyond `capacity` the group with most loses its worst; what
    is still only in the database is swept in the database's own order.

    Example
    -------
    >>> from datetime import UTC, datetime
    >>> ranking = fair_by(lambda c: c.owner_id)(100)
    >>> for id in ("a1", "a2", "a3", "b1"):
    ...     moment = datetime(2030, 1, 1, tzinfo=UTC)
    ...     _ = ranking.offer(Candidate(id, "digest", 0, 0, moment, moment, owner_id=id[0]))
    >>> [candidate.id for candidate in ranking.window(Demand(1), 10)]
    ['a1', 'b1', 'a2', 'a3']
    """

    def order(capacity: int) -> Ranking:
        return FairRanking(capacity, group, key, weight)

    return order


class FairRanking:
    """Start-time fair queueing: the group that has had least, by its weight, is next."""

    def __init__(
        self,
        capacity: int,
        group: Callable[[Candidate], Hashable],
        key: PriorityKey | None = None,
        weight: Callable[[Hashable], float] | None = None,
    ) -> None:
        self._group = group
        self._weight = weight
        self._shelves = Shelves(capacity, key)
        self._capacity = capacity
        # What each group has had, in turns divided by weight, and what the one that had least has had.
        self._had: dict[Hashable, float] = {}
        self._least = 0.0

    def offer(self, candidate: Candidate) -> Sequence[Candidate]:
        group = self._group(candidate)
        self._step(group)  # a weight that is none is about this row, not about a window later on
        if not self._shelves.shelf(group):
            # A group that comes (back) starts where everybody is: absence is no credit.
            self._had[group] = max(self._had.get(group, self._least), self._least)
            self._forget()
        return self._shelves.put(group, candidate)

    def settle(self, id: str) -> bool:
        found, group = self._shelves.discard(id)
        if found:
            self._had[group] += self._step(group)
        return found

    def limit(self, worst: Candidate | None) -> Sequence[Candidate]:
        return ()  # the database's horizon says nothing about another order

    def window(self, demand: Demand, size: int) -> list[Candidate]:
        room = dict(demand.per_type)
        chosen: list[Candidate] = []
        # (what the group has had, its best one's rank, a number so that nothing else is compared, group,
        # place)
        turns: list[tuple[float, Any, int, Hashable, int]] = [
            (self._had[group], self._shelves.shelf(group)[0][0], number, group, 0)
            for number, group in enumerate(self._shelves.groups())
        ]
        heapify(turns)
        if turns:
            self._least = max(self._least, turns[0][0])
        while turns and len(chosen) < size:
            had, _, number, group, place = turns[0]
            shelf = self._shelves.shelf(group)
            if take_room(room, shelf[place][2]):
                chosen.append(shelf[place][2])
                had += self._step(group)
            place += 1
            if place < len(shelf):
                heapreplace(turns, (had, shelf[place][0], number, group, place))
            else:
                heappop(turns)
        return chosen

    def __contains__(self, id: object) -> bool:
        return id in self._shelves

    def __len__(self) -> int:
        return len(self._shelves)

    def _step(self, group: Hashable) -> float:
        weight = 1.0 if self._weight is None else self._weight(group)
        if weight <= 0:
            raise ValueError(f"the weight of {group!r} must be above 0, not {weight!r}")
        return 1.0 / weight

    def _forget(self) -> None:
        # Only now and then; a group that is gone and has had no more than the others leaves nothing to
        # remember.
        if len(self._had) > 2 * self._capacity:
            waiting = set(self._shelves.groups())
            self._had = {
                group: had for group, had in self._had.items() if had > self._least or group in waiting
            }
