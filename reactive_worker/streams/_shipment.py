"""One subscription of a `sink`: what is on its way to the store, by two lines, and what became of it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable

from reactive_worker.backoff import Backoff
from reactive_worker.models import TodoEvent
from reactive_worker.streams._answers import BatchResult, Store, StoredBatch
from reactive_worker.streams._items import Ceiling, Item, by_run, halves
from reactive_worker.streams._lanes import Lane, Lanes
from reactive_worker.streams._line import Line
from reactive_worker.streams._numbering import Numbering, RunKey, run_key
from reactive_worker.streams._outbox import Outbox
from reactive_worker.streams._scheduling import ticks

# Runs that were lost; what their executors still say is dropped without another round trip.
_LOST_REMEMBERED = 10_000
# Schedulers round to the microsecond.
_HAIR = 1e-6


@dataclass(frozen=True, slots=True)
class Options:
    """What a sink was asked for."""

    store: Store
    first_seq: Callable[[TodoEvent], int]
    retryable: Callable[[Exception], bool]
    on_lost: Callable[[Collection[RunKey]], None]
    on_error: Callable[[TodoEvent, Exception], TodoEvent | None]
    on_retry: Callable[[Exception, int, float], None] | None
    size: Callable[[TodoEvent], int] | None
    max_batch: int
    max_bytes: int | None
    backoff: Backoff


class Shipment:
    """One subscription: what waits, what is on its way, and the numbers.

    Two lines lead to the store. The main one takes batches of everybody's events. A run whose events cannot
    be stored with the others is put aside: it has a lane of its own, and lanes are served by the second line,
    so that a call that hangs because of one run holds up no other.
    """

    def __init__(
        self,
        options: Options,
        outbox: Callable[[Callable[[], None]], Outbox],
        lanes: Lanes,
        observer: abc.ObserverBase[StoredBatch],
        clock: abc.SchedulerBase,
        upstream: abc.SchedulerBase | None,
    ) -> None:
        self._options = options
        self._observer = observer
        self._clock = clock
        self._now = ticks(clock)
        self._upstream = upstream
        self._outbox = outbox(self._pump)
        self._lanes = lanes
        # The batch in flight, in pieces still to be stored: one, or more once it had to be halved. No run is
        # in two of them, and none that is here has a lane.
        self._pieces: deque[list[Item]] = deque()
        self._ceiling = Ceiling(options.max_batch, options.max_bytes)
        self._numbering = Numbering(options.first_seq)
        self._replaced: set[str] = set()
        self._lost: OrderedDict[RunKey, None] = OrderedDict()
        self._main = Line(options.backoff, clock, upstream)
        self._aside = Line(options.backoff, clock, upstream)
        self._next_lane = SerialDisposable()
        self._pumping = False
        self._source_done = False
        self._source_error: Exception | None = None
        self._disposed = False

    def run(self, source: Observable[TodoEvent]) -> abc.DisposableBase:
        subscription = source.subscribe(self._accept, self._done, self._done, scheduler=self._upstream)
        return CompositeDisposable(
            subscription, Disposable(self._dispose), self._main.doing, self._aside.doing, self._next_lane
        )

    def _dispose(self) -> None:
        self._disposed = True
        self._outbox.dispose()
        self._pieces.clear()
        self._lanes.clear()

    def _accept(self, event: TodoEvent) -> None:
        if run_key(event) not in self._lost:
            self._outbox.add(self._weighed(event))

    def _weighed(self, event: TodoEvent) -> Item:
        return Item(event, 0 if self._options.size is None else self._options.size(event))

    def _done(self, error: Exception | None = None) -> None:
        self._source_done = True
        self._source_error = error
        self._pump()

    # What goes next -----------------------------------------------------------------------------------------

    def _pump(self) -> None:
        # A loop and not recursion: a store that answers at once comes back here from inside `subscribe`.
        if self._pumping:
            return
        self._pumping = True
        try:
            while not self._disposed and (self._send_piece() or self._send_lane()):
                pass
        finally:
            self._pumping = False
        idle = not (self._main.busy or self._aside.busy or self._pieces)
        if self._source_done and idle and not len(self._lanes) and not len(self._outbox):
            if self._source_error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(self._source_error)

    def _send_piece(self) -> bool:
        """Let the main line do something; False when there is nothing for it to do now."""
        if not self._main.free:
            return False
        if not self._pieces:
            if not len(self._outbox) or not (self._outbox.due or self._source_done):
                return False
            piece: list[Item] = []
            for item in self._outbox.cut(self._ceiling.rows, self._ceiling.size):
                if item.run in self._lanes:
                    self._lanes.add(item)
                else:
                    piece.append(item)
            if piece:
                self._pieces.append(piece)
            self._outbox.look()
            return True
        piece = self._pieces[0] = self._numbered(self._pieces[0])
        if not piece:
            self._pieces.popleft()
            return True
        self._send(self._main, piece, self._piece_stored, self._piece_refused)
        return True

    def _send_lane(self) -> bool:
        """Let the second line do something; False when there is nothing for it to do now."""
        if not self._aside.free or (found := self._lanes.next()) is None:
            return False
        run, lane = found
        if (wait := lane.due - self._now()) > _HAIR:
            self._next_lane.disposable = self._clock.schedule_relative(wait, self._lane_due)
            return False
        head = lane.head(self._options.max_batch, self._options.max_bytes)
        numbered = self._numbered(head)
        if len(numbered) < len(head):
            # Of a run nobody knows: none of it can be numbered.
            self._lanes.pop(run, len(head))
            return True
        self._lanes.replace(run, numbered)
        self._send(self._aside, numbered, self._lane_stored, self._lane_refused)
        return True

    def _lane_due(self, _: abc.SchedulerBase, __: object = None) -> None:
        self._pump()

    def _numbered(self, items: list[Item]) -> list[Item]:
        numbered: list[Item] = []
        for item in items:
            if item.event.seq is not None:
                numbered.append(item)
                continue
            try:
                numbered.append(Item(self._numbering.number(item.event), item.size))
            except Exception as error:  # noqa: BLE001 - about one event of a run nobody knows
                self._options.on_error(item.event, error)
        return numbered

    def _send(
        self,
        line: Line,
        items: list[Item],
        stored: Callable[[list[Item], BatchResult], None],
        refused: Callable[[list[Item], Exception], None],
    ) -> None:
        def answered(result: BatchResult) -> None:
            if self._main.tries:
                # It was away, and works again: whoever waits need not wait longer.
                self._lanes.wake(self._now())
            self._main.wake()
            self._aside.wake()
            stored(items, result)
            self._outbox.look()

        def failed(error: Exception) -> None:
            refused(items, error)

        line.send(lambda: self._options.store([item.event for item in items]), answered, failed, self._pump)

    # What was answered --------------------------------------------------------------------------------------

    def _piece_stored(self, items: list[Item], result: BatchResult) -> None:
        self._pieces.popleft()
        self._ceiling.grow()
        self._settle(items, result)
        for run, left in by_run(items).items():
            if run in result.busy and run not in self._lost:
                self._put_aside(run, left, len(left), result.busy[run])
            elif run in result.refused and run not in self._lost:
                self._refuse_run(run, left, result.refused[run])

    def _lane_stored(self, items: list[Item], result: BatchResult) -> None:
        run = items[0].run
        lane = self._lanes.get(run)
        self._settle(items, result)
        if lane is None or run in self._lost:
            return
        if run in result.refused:
            self._refuse_lane(run, lane, items, result.refused[run])
        elif run in result.busy:
            self._hold(lane, result.busy[run])
        else:
            lane.tries, lane.due = 0, self._now()
            lane.window = min(self._options.max_batch, lane.window * 2)
            self._lanes.pop(run, len(items))

    def _settle(self, items: list[Item], result: BatchResult) -> None:
        """Note what became of each run, and tell."""
        lost = [run for run in by_run(items) if run in result.lost]
        kept = [
            item.event
            for item in items
            if not (item.run in result.lost or item.run in result.busy or item.run in result.refused)
        ]
        for event in kept:
            if event.outcome is not None:
                self._numbering.drop(run_key(event))
            self._replaced.discard(event.id)
        for run in lost:
            self._forget(run)
        if lost:
            self._outbox.drop(self._lost)
        if kept or lost:
            self._observer.on_next(StoredBatch(tuple(kept), tuple(lost)))
        if lost:
            self._options.on_lost(lost)

    def _forget(self, run: RunKey) -> None:
        self._numbering.drop(run)
        self._lanes.close(run)
        self._lost[run] = None
        if len(self._lost) > _LOST_REMEMBERED:
            self._lost.popitem(last=False)

    # What was refused ---------------------------------------------------------------------------------------

    def _piece_refused(self, items: list[Item], error: Exception) -> None:
        self._pieces.popleft()
        passing = self._options.retryable(error)
        runs = by_run(items)
        if passing:
            self._ceiling.shrink(items)
            self._main.rest(self._pump)
        if len(runs) > 1:
            first, second = halves(items)
            if passing:
                # Behind what is waiting: while this half is looked at, the other one may pass.
                self._pieces.extend((first, second))
                self._tell(error, self._main.tries, self._options.backoff.delay(self._main.tries))
            else:
                self._pieces.extendleft((self._take_back(second), self._take_back(first)))
        elif passing:
            self._put_aside(items[0].run, items, len(items) // 2, error)
        else:
            self._refuse_run(items[0].run, items, error)

    def _lane_refused(self, items: list[Item], error: Exception) -> None:
        run = items[0].run
        lane = self._lanes.get(run)
        if lane is None:
            return
        if not self._options.retryable(error):
            self._refuse_lane(run, lane, items, error)
            return
        lane.window = max(1, len(items) // 2)
        self._aside.rest(self._pump)
        self._hold(lane, error)

    def _refuse_run(self, run: RunKey, items: list[Item], error: Exception) -> None:
        """All that a run said in a piece is refused for good: find out which of it."""
        items = self._take_back(items)
        if len(items) > 1:
            self._lanes.open(run, items, window=len(items) // 2, tries=0, due=self._now())
        elif (instead := self._leave_out(items[0], error)) is not None:
            self._pieces.appendleft([instead])

    def _refuse_lane(self, run: RunKey, lane: Lane, items: list[Item], error: Exception) -> None:
        # What comes behind takes the number of what is left out: readers must not find a gap.
        self._lanes.replace(run, self._take_back(list(lane.items)))
        lane.tries, lane.due = 0, self._now()
        if len(items) > 1:
            lane.window = max(1, len(items) // 2)
            return
        instead = self._leave_out(lane.items[0], error)
        if instead is None:
            self._lanes.pop(run, 1)
        else:
            self._lanes.replace(run, [instead])

    def _take_back(self, items: list[Item]) -> list[Item]:
        self._numbering.take_back([item.event for item in items])
        return [Item(replace(item.event, seq=None), item.size) for item in items]

    def _leave_out(self, item: Item, error: Exception) -> Item | None:
        """An event that cannot be stored; returns what is stored in its place."""
        event = item.event
        was_replacement = event.id in self._replaced
        self._replaced.discard(event.id)
        replacement = self._options.on_error(event, error)
        if replacement is not None and not was_replacement:
            self._replaced.add(replacement.id)
            # Weighed as what it replaces, so that sums stay sums.
            return Item(replace(replacement, seq=None), item.size)
        if event.outcome is not None:
            self._numbering.drop(run_key(event))
        return None

    def _put_aside(self, run: RunKey, items: list[Item], window: int, error: Exception) -> None:
        delay = self._options.backoff.delay(1)
        self._lanes.open(run, items, window=window, tries=1, due=self._now() + delay)
        # In an outage one run after the other ends up here; that is one piece of news, not many.
        self._tell(error, max(1, self._main.tries), delay)

    def _hold(self, lane: Lane, error: Exception) -> None:
        lane.tries += 1
        delay = self._options.backoff.delay(lane.tries)
        lane.due = self._now() + delay
        self._tell(error, lane.tries, delay)

    def _tell(self, error: Exception, tries: int, delay: float) -> None:
        if self._options.on_retry is not None:
            self._options.on_retry(error, tries, delay)
