"""An order for `prioritise`: the tenants take turns, and no slot stays empty for fairness' sake."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import Any, Literal

from reactive_worker.models import Candidate, Demand
from reactive_worker.streams._priority import PriorityKey, take_room
from reactive_worker.streams._ranking import Ranking
from reactive_worker.streams._shelves import Shelves


@dataclass(frozen=True, slots=True)
class FairOrder:
    """What `fair_by` returns: an order for `prioritise` that also says how to sweep for it."""

    group: Callable[[Candidate], Hashable]
    key: PriorityKey | None
    weight: Callable[[Hashable], float] | None
    #: The column a sweep shall be fair by; None: it is strictly by priority and age.
    sweep_by: str | None

    def __call__(self, capacity: int) -> Ranking:
        return FairRanking(capacity, self.group, self.key, self.weight)


def fair_by(
    group: Literal["owner_id"] | Callable[[Candidate], Hashable] = "owner_id",
    *,
    key: PriorityKey | None = None,
    weight: Callable[[Hashable], float] | None = None,
) -> FairOrder:
    """Serve groups in turns, each group's candidates in their own order.

    ::

        waiting   a1 a2 a3 a4 a5 ... a9999   b1 b2   c1
        served    a1 b1 c1 a2 b2 a3 a4 a5 ...

    Work-conserving: whoever waits alone gets every slot. A group that comes, or comes back, joins at
    the end of the round: it is ahead of nobody who waits already.

    Parameters
    ----------
    group:
        ``"owner_id"``: the owners take turns, and sweeps bring the best rows of each, so that ten thousand
        rows of one owner in the database do not hide ten of another. Or a function of a candidate, as
        ``lambda c: c.context_id``: fair among the candidates known here, see below.
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
        When `group` is another text; when a weight is not above 0, where `prioritise` reports errors of a
        key.

    Notes
    -----
    Beyond `capacity` the group with most loses its worst. With a function as `group`, what is still only in
    the database is swept in the database's own order, by priority and age: a backlog of more rows than the
    capacity can hide a group until its turn comes there.

    Example
    -------
    >>> from datetime import UTC, datetime
    >>> ranking = fair_by("owner_id")(100)
    >>> for id in ("a1", "a2", "a3", "b1"):
    ...     moment = datetime(2030, 1, 1, tzinfo=UTC)
    ...     _ = ranking.offer(Candidate(id, "digest", 0, 0, moment, moment, owner_id=id[0]))
    >>> [candidate.id for candidate in ranking.window(Demand(1), 10)]
    ['a1', 'b1', 'a2', 'a3']
    """

    if group == "owner_id":
        return FairOrder(lambda candidate: candidate.owner_id, key, weight, "owner_id")
    if not callable(group):
        raise ValueError(f"group must be 'owner_id' or a function of a candidate, not {group!r}")
    return FairOrder(group, key, weight, None)


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
        # The turn each waiting group is up for: turns it has had, divided by weight.
        self._turn: dict[Hashable, float] = {}
        # The latest turn anybody had. Whoever comes joins behind it, as at the end of a round: ahead of
        # nobody who has waited since, however many come, and not behind for what it had before it went.
        self._now = 0.0

    def offer(self, candidate: Candidate) -> Sequence[Candidate]:
        group = self._group(candidate)
        # Asked for each: a weight that is none is about this row, and not about a window later on.
        step = self._step(group)
        if not self._shelves.shelf(group):
            self._turn[group] = self._now + step
        dropped = self._shelves.put(group, candidate)
        for gone in dropped:
            self._forget(self._group(gone))
        return dropped

    def settle(self, id: str) -> bool:
        found, group = self._shelves.discard(id)
        if found:
            self._now = max(self._now, self._turn[group])
            self._turn[group] += self._step(group)
            self._forget(group)
        return found

    def limit(self, worst: Candidate | None) -> Sequence[Candidate]:
        return ()  # the database's horizon says nothing about another order

    def window(self, demand: Demand, size: int) -> list[Candidate]:
        if len(self._turn) > len(groups := set(self._shelves.groups())):
            # Rows that changed hands left a group without any.
            self._turn = {group: turn for group, turn in self._turn.items() if group in groups}
        room = dict(demand.per_type)
        chosen: list[Candidate] = []
        # (the turn the group is up for, its best one's rank, a number so that nothing else is compared,
        # group, place)
        turns: list[tuple[float, Any, int, Hashable, int]] = [
            (self._turn[group], self._shelves.shelf(group)[0][0], number, group, 0)
            for number, group in enumerate(self._shelves.groups())
        ]
        heapify(turns)
        while turns and len(chosen) < size:
            turn, _, number, group, place = turns[0]
            shelf = self._shelves.shelf(group)
            if take_room(room, shelf[place][2]):
                chosen.append(shelf[place][2])
                turn += self._step(group)
            place += 1
            if place < len(shelf):
                heapreplace(turns, (turn, shelf[place][0], number, group, place))
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

    def _forget(self, group: Hashable) -> None:
        if not self._shelves.shelf(group):
            self._turn.pop(group, None)
