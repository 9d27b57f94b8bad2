"""Events that wait to be stored, until there are enough of them or they have waited enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container

from reactivex import abc
from reactivex.disposable import Disposable, SerialDisposable

from reactive_worker.models import TodoEvent
from reactive_worker.streams._numbering import RunKey, run_key
from reactive_worker.streams.merge_chunks import take_merged


class Outbox:
    """The buffer of a `sink`: bounded by asking, not by dropping.

    Parameters
    ----------
    on_due:
        Called when a batch should leave: there are `max_batch` events, or the first has waited `max_delay`
        seconds.
    on_pressure:
        True when there are more than `capacity`, False when there are no more than half as many.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        max_delay: float,
        capacity: int,
        merge_chunks: bool,
        on_due: Callable[[], None],
        on_pressure: Callable[[bool], None] | None,
        clock: abc.SchedulerBase,
    ) -> None:
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._capacity = capacity
        self._merge_chunks = merge_chunks
        self._on_due = on_due
        self._on_pressure = on_pressure
        self._clock = clock
        self._waiting: deque[TodoEvent] = deque()
        self._timer = SerialDisposable()
        self._timer_set = False
        self._waited = False
        self._pressed = False

    @property
    def due(self) -> bool:
        return self._waited or len(self._waiting) >= self._max_batch

    def add(self, event: TodoEvent) -> None:
        """Take one in."""
        self._waiting.append(event)
        if len(self._waiting) > self._capacity and not self._pressed:
            self._press(True)
        if self.due:
            self._on_due()
        elif not self._timer_set:
            self._timer_set = True
            self._timer.disposable = self._clock.schedule_relative(self._max_delay, self._delay_over)

    def cut(self) -> list[TodoEvent]:
        """Take a batch out, oldest first."""
        if self._merge_chunks:
            batch = take_merged(self._waiting, self._max_batch)
        else:
            batch = [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]
        self._changed()
        return batch

    def drop(self, runs: Container[RunKey]) -> None:
        """Throw away what these runs said."""
        self._waiting = deque(event for event in self._waiting if run_key(event) not in runs)
        self._changed()

    def dispose(self) -> None:
        self._timer.dispose()
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)

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
        if self._pressed and len(self._waiting) <= self._capacity // 2:
            self._press(False)

    def _press(self, pressed: bool) -> None:
        self._pressed = pressed
        if self._on_pressure is not None:
            self._on_pressure(pressed)
