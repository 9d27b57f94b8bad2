"""Events that wait to be stored, until there are enough of them or they have waited enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass

from reactivex import abc
from reactivex.disposable import Disposable, SerialDisposable

from reactive_worker.streams._items import Item
from reactive_worker.streams._lanes import Lanes
from reactive_worker.streams._numbering import RunKey
from reactive_worker.streams.merge_chunks import take_merged


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a batch may hold, and how much may wait."""

    max_batch: int
    #: None: bytes are not counted.
    max_bytes: int | None
    #: Seconds an event waits for company.
    max_delay: float
    #: What may wait, here and in the lanes, before there is pressure.
    capacity: int
    capacity_bytes: int | None
    merge_chunks: bool


class Outbox:
    """The buffer of a `sink`: bounded by asking, not by dropping.

    Parameters
    ----------
    bounds:
        How much.
    lanes:
        Where events wait that are not stored with the others.
    on_due:
        Called when a batch should leave: there is enough for one, or the first has waited `max_delay`.
    on_pressure:
        True when more waits than the capacity, False when no more than half of it does.
    clock:
        Runs the timer.
    """

    def __init__(
        self,
        bounds: Bounds,
        lanes: Lanes,
        on_due: Callable[[], None],
        on_pressure: Callable[[bool], None] | None,
        clock: abc.SchedulerBase,
    ) -> None:
        self._bounds = bounds
        self._lanes = lanes
        self._on_due = on_due
        self._on_pressure = on_pressure
        self._clock = clock
        self._waiting: deque[Item] = deque()
        self._size = 0
        self._timer = SerialDisposable()
        self._timer_set = False
        self._waited = False
        self._pressed = False

    @property
    def due(self) -> bool:
        return (
            self._waited
            or len(self._waiting) >= self._bounds.max_batch
            or (self._bounds.max_bytes is not None and self._size >= self._bounds.max_bytes)
        )

    def add(self, item: Item) -> None:
        """Take one in."""
        self._waiting.append(item)
        self._size += item.size
        self.look()
        if self.due:
            self._on_due()
        elif not self._timer_set:
            self._timer_set = True
            self._timer.disposable = self._clock.schedule_relative(self._bounds.max_delay, self._delay_over)

    def cut(self, rows: int, size: int | None) -> list[Item]:
        """Take a batch out, oldest first, of at most so many events and bytes; at least one event."""
        batch = take_merged(self._waiting, rows, size, merge=self._bounds.merge_chunks)
        self._size -= sum(item.size for item in batch)
        self._changed()
        return batch

    def drop(self, runs: Container[RunKey]) -> None:
        """Throw away what these runs said."""
        self._waiting = deque(item for item in self._waiting if item.run not in runs)
        self._size = sum(item.size for item in self._waiting)
        self._changed()

    def dispose(self) -> None:
        self._timer.dispose()
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    def look(self) -> None:
        """Say so when it has become full, or has room again."""
        rows, size = len(self._waiting) + self._lanes.rows, self._size + self._lanes.size
        limit = self._bounds.capacity_bytes
        if not self._pressed:
            if rows > self._bounds.capacity or (limit is not None and size > limit):
                self._press(True)
        elif rows <= self._bounds.capacity // 2 and (limit is None or size <= limit // 2):
            self._press(False)

    def _delay_over(self, _: abc.SchedulerBase, __: object = None) -> None:
        self._timer_set = False
        self._waited = True
        self._on_due()

    def _changed(self) -> None:
        if not self._waiting:
            self._waited = self._timer_set = False
            self._timer.disposable = Disposable()
        # Else the timer of the batch's first event goes on for what is left: it may not wait longer than
        # that, and to leave at once would make a request of its own for the one event too many of a burst.
        self.look()

    def _press(self, pressed: bool) -> None:
        self._pressed = pressed
        if self._on_pressure is not None:
            self._on_pressure(pressed)
