"""Runs that are stored apart from the others, because what they said was refused: each at its own pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from reactive_worker.streams._items import Item
from reactive_worker.streams._numbering import RunKey

# One run that cannot be stored fills a tenth of the buffer, then it alone waits; the others need the rest.
_SHARE = 10


@dataclass(slots=True)
class Lane:
    """What one run said and what is not stored yet, in order."""

    items: deque[Item] = field(default_factory=deque[Item])
    #: How many are sent at a time; halved until the culprit among them stands alone.
    window: int = 1
    #: Failures in a row.
    tries: int = 0
    #: When it may be sent, by the scheduler's clock, in seconds.
    due: float = 0.0
    size: int = 0
    pressed: bool = False

    def head(self, rows: int, size: int | None) -> list[Item]:
        """What is to be sent next: within its window and these limits, at least one."""
        chosen: list[Item] = []
        total = 0
        for item in self.items:
            total += item.size
            if chosen and (len(chosen) >= min(self.window, rows) or (size is not None and total > size)):
                break
            chosen.append(item)
        return chosen


class Lanes:
    """All runs that were put aside.

    Parameters
    ----------
    capacity, capacity_bytes:
        Of the whole buffer; one lane may fill a tenth of either.
    on_pressure:
        Told (run, True) when a lane holds more than that, and (run, False) when it is empty or gone.
    """

    def __init__(
        self,
        capacity: int,
        capacity_bytes: int | None,
        on_pressure: Callable[[RunKey, bool], None] | None,
    ) -> None:
        self._rows_each = max(1, capacity // _SHARE)
        self._size_each = None if capacity_bytes is None else max(1, capacity_bytes // _SHARE)
        self._on_pressure = on_pressure
        self._lanes: dict[RunKey, Lane] = {}
        #: Events in all lanes, and their bytes.
        self.rows = 0
        self.size = 0

    def __contains__(self, run: object) -> bool:
        return run in self._lanes

    def __len__(self) -> int:
        return len(self._lanes)

    def get(self, run: RunKey) -> Lane | None:
        """A run's lane."""
        return self._lanes.get(run)

    def open(self, run: RunKey, items: Iterable[Item], *, window: int, tries: int, due: float) -> None:
        """Put a run aside."""
        lane = self._lanes[run] = Lane(window=max(1, window), tries=tries, due=due)
        for item in items:
            self._take(lane, item)
        self._look(run, lane)

    def add(self, item: Item) -> None:
        """Something more that a run aside said."""
        lane = self._lanes[item.run]
        self._take(lane, item)
        self._look(item.run, lane)

    def pop(self, run: RunKey, count: int) -> None:
        """These were stored, or left out."""
        lane = self._lanes[run]
        for _ in range(count):
            item = lane.items.popleft()
            lane.size -= item.size
            self.rows -= 1
            self.size -= item.size
        if not lane.items:
            self.close(run)

    def replace(self, run: RunKey, items: list[Item]) -> None:
        """Other items in the place of as many at the front."""
        lane = self._lanes[run]
        for _ in items:
            lane.items.popleft()
        lane.items.extendleft(reversed(items))

    def close(self, run: RunKey) -> None:
        """The run is like all others again, or gone."""
        lane = self._lanes.pop(run, None)
        if lane is None:
            return
        self.rows -= len(lane.items)
        self.size -= lane.size
        if lane.pressed and self._on_pressure is not None:
            self._on_pressure(run, False)

    def clear(self) -> None:
        """Drop everything, tell nobody."""
        self._lanes.clear()
        self.rows = self.size = 0

    def next(self) -> tuple[RunKey, Lane] | None:
        """The run that is due first."""
        return min(self._lanes.items(), key=lambda each: each[1].due, default=None)

    def wake(self, now: float) -> None:
        """The store works again: nobody need wait for it any longer."""
        for lane in self._lanes.values():
            lane.due = min(lane.due, now)

    def _take(self, lane: Lane, item: Item) -> None:
        lane.items.append(item)
        lane.size += item.size
        self.rows += 1
        self.size += item.size

    def _look(self, run: RunKey, lane: Lane) -> None:
        if lane.pressed or self._on_pressure is None:
            return
        if len(lane.items) > self._rows_each or (self._size_each is not None and lane.size > self._size_each):
            lane.pressed = True
            self._on_pressure(run, True)
