"""Events leave here: in order, in batches, numbered without gaps, retried for as long as it takes."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable, SingleAssignmentDisposable

from reactive_worker.backoff import Backoff
from reactive_worker.models import TodoEvent
from reactive_worker.streams._numbering import Numbering, RunKey, run_key
from reactive_worker.streams._outbox import Outbox
from reactive_worker.streams._scheduling import choose_scheduler

#: Pace of a batch that is refused for now.
STORE_BACKOFF = Backoff(0.1, 10.0, jitter=0.2)

# Runs that were lost; what their executors still say is dropped without another round trip.
_LOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What `store` answers: ids of tasks that are another worker's now; nothing of theirs was stored."""

    lost: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """What the sink emits: the events that are in the table now, numbered."""

    events: tuple[TodoEvent, ...]
    lost: tuple[str, ...] = ()


Store = Callable[[list[TodoEvent]], Observable[BatchResult]]


def sink(
    store: Store,
    *,
    first_seq: Callable[[TodoEvent], int],
    retryable: Callable[[Exception], bool],
    on_lost: Callable[[Collection[str]], None],
    on_error: Callable[[TodoEvent, Exception], TodoEvent | None],
    on_retry: Callable[[Exception, int, float], None] | None = None,
    on_pressure: Callable[[bool], None] | None = None,
    max_batch: int = 200,
    max_delay: float = 0.02,
    capacity: int = 10_000,
    merge_chunks: bool = True,
    backoff: Backoff = STORE_BACKOFF,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[TodoEvent]], Observable[StoredBatch]]:
    """Store a stream of events in batches, one after the other.

    ::

        source   --a-b-c----d--e----------f|
                   [--20ms]   [full]
        store             abc  de  (de)     f        the first try of de is refused
        result    --------abc------de-------f|

    A batch leaves when it has `max_batch` events, or `max_delay` after its first; while one is in flight the
    next gathers. Within it neighbouring text chunks of an artifact are one event (see `merge_chunks`). Events
    get their numbers when the batch is cut and keep them through every retry, so storing one twice is
    harmless.

    A batch that is refused for good is split in halves until the offending event stands alone; the events
    after it take its number, for readers resume by number and must not find a gap.

    Parameters
    ----------
    store:
        Writes a batch in one go, or as good as: it may be given the same events again, ids and numbers
        unchanged.
    first_seq:
        The number of a run's first event, one above what the claim wrote. Asked once for each (task,
        attempt).
    retryable:
        Whether the same batch may pass later: true for an unreachable database, false for a value it refuses.
    on_lost:
        Given ids of tasks that are another worker's now; further events of those runs are dropped.
    on_error:
        Given an event that cannot be stored, and why. May return another to store in its place (an outcome
        must be known, so a failed one for a result that cannot be stored); None leaves it out. A replacement
        that is refused too is left out.
    on_retry:
        Told (error, tries so far, seconds until the next).
    on_pressure:
        True when more than `capacity` events wait, False when they are half as many again. Whoever produces
        events should wait meanwhile: the sink accepts them all the same.
    max_batch:
        The most events in a batch, after merging.
    max_delay:
        Seconds an event waits for company.
    capacity:
        Events waiting above which there is pressure.
    merge_chunks:
        Whether text chunks are merged.
    backoff:
        Pace of retries.
    scheduler:
        Runs the timers; default the subscription's.

    Returns
    -------
    An operator. It emits each batch once it is stored. When the source completes or errors, all that waits is
    stored first. Disposal drops what waits: complete the source to have it stored.

    Raises
    ------
    ValueError
        When `max_batch` or `capacity` is below 1, or `max_delay` below 0.

    Example
    -------
    >>> import reactivex
    >>> from reactivex.subject import Subject
    >>> said = Subject()
    >>> stored = said.pipe(sink(lambda events: reactivex.just(BatchResult()), first_seq=lambda event: 2,
    ...     retryable=lambda error: False, on_lost=print, on_error=lambda event, error: None))
    >>> _ = stored.subscribe(lambda batch: print([event.seq for event in batch.events]))
    >>> for _ in range(3): said.on_next(TodoEvent("1", 1, "task_progress", {}))
    >>> said.on_completed()
    [2, 3, 4]
    """
    if max_batch < 1:
        raise ValueError(f"max_batch must be at least 1, not {max_batch!r}")
    if max_delay < 0:
        raise ValueError(f"max_delay must be at least 0 seconds, not {max_delay!r}")
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, not {capacity!r}")
    options = _Options(
        store, first_seq, retryable, on_lost, on_error, on_retry, on_pressure,
        max_batch, max_delay, capacity, merge_chunks, backoff,
    )  # fmt: skip

    def operator(source: Observable[TodoEvent]) -> Observable[StoredBatch]:
        def subscribe(
            observer: abc.ObserverBase[StoredBatch], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            clock = choose_scheduler(scheduler, scheduler_)
            return _Sink(options, observer, clock, scheduler or scheduler_).run(source)

        return Observable(subscribe)

    return operator


@dataclass(frozen=True, slots=True)
class _Options:
    store: Store
    first_seq: Callable[[TodoEvent], int]
    retryable: Callable[[Exception], bool]
    on_lost: Callable[[Collection[str]], None]
    on_error: Callable[[TodoEvent, Exception], TodoEvent | None]
    on_retry: Callable[[Exception, int, float], None] | None
    on_pressure: Callable[[bool], None] | None
    max_batch: int
    max_delay: float
    capacity: int
    merge_chunks: bool
    backoff: Backoff


class _Sink:
    """One subscription: what waits, the parts of the batch in flight, and the numbers."""

    def __init__(
        self,
        options: _Options,
        observer: abc.ObserverBase[StoredBatch],
        clock: abc.SchedulerBase,
        upstream: abc.SchedulerBase | None,
    ) -> None:
        self._options = options
        self._observer = observer
        self._clock = clock
        self._upstream = upstream
        self._outbox = Outbox(
            max_batch=options.max_batch,
            max_delay=options.max_delay,
            capacity=options.capacity,
            merge_chunks=options.merge_chunks,
            on_due=self._pump,
            on_pressure=options.on_pressure,
            clock=clock,
        )
        # The batch in flight, in parts still to be stored: one, or more once it had to be split.
        self._parts: deque[list[TodoEvent]] = deque()
        self._numbering = Numbering(options.first_seq)
        self._replaced: set[str] = set()
        self._lost: OrderedDict[RunKey, None] = OrderedDict()
        self._storing = SerialDisposable()
        self._busy = False
        self._pumping = False
        self._tries = 0
        self._source_done = False
        self._source_error: Exception | None = None
        self._disposed = False

    def run(self, source: Observable[TodoEvent]) -> abc.DisposableBase:
        subscription = source.subscribe(self._accept, self._done, self._done, scheduler=self._upstream)
        return CompositeDisposable(subscription, Disposable(self._dispose), self._storing)

    def _dispose(self) -> None:
        self._disposed = True
        self._outbox.dispose()
        self._parts.clear()

    def _accept(self, event: TodoEvent) -> None:
        if run_key(event) not in self._lost:
            self._outbox.add(event)

    # The batch in flight ------------------------------------------------------------------------------------

    def _pump(self) -> None:
        # A loop and not recursion: a store that answers at once comes back here from inside `subscribe`.
        if self._pumping:
            return
        self._pumping = True
        try:
            while not self._busy and not self._disposed:
                if self._parts:
                    self._store_next()
                elif len(self._outbox) and (self._outbox.due or self._source_done):
                    self._parts.append(self._outbox.cut())
                else:
                    break
        finally:
            self._pumping = False
        if self._source_done and not self._busy and not self._parts and not len(self._outbox):
            if self._source_error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(self._source_error)

    def _store_next(self) -> None:
        numbered: list[TodoEvent] = []
        for event in self._parts[0]:
            try:
                numbered.append(self._numbering.number(event))
            except Exception as error:  # noqa: BLE001 - about one event of a run nobody knows
                self._options.on_error(event, error)
        self._parts[0] = numbered
        if not numbered:
            self._parts.popleft()
            return
        self._store(numbered)

    def _store(self, events: list[TodoEvent]) -> None:
        self._busy = True
        subscription = SingleAssignmentDisposable()
        self._storing.disposable = subscription
        answers: list[BatchResult] = []

        def completed() -> None:
            if answers:
                self._stored(events, answers[0])
            else:
                self._refused(events, RuntimeError("the store ended without an answer"))

        try:
            stream = self._options.store(list(events))
        except Exception as error:  # noqa: BLE001 - a store that cannot even start is one that refuses
            self._refused(events, error)
            return
        subscription.disposable = stream.pipe(ops.take(1)).subscribe(
            answers.append, lambda error: self._refused(events, error), completed, scheduler=self._upstream
        )

    def _stored(self, events: list[TodoEvent], result: BatchResult) -> None:
        self._tries = 0
        self._parts.popleft()
        lost = set(result.lost)
        for event in events:
            if event.todolist_id in lost:
                self._forget(run_key(event))
            elif event.outcome is not None:
                self._numbering.drop(run_key(event))
            self._replaced.discard(event.id)
        if lost:
            self._outbox.drop(self._lost)
            self._parts = deque([e for e in part if run_key(e) not in self._lost] for part in self._parts)
        self._busy = False
        kept = tuple(event for event in events if event.todolist_id not in lost)
        self._observer.on_next(StoredBatch(kept, tuple(lost)))
        if lost:
            self._options.on_lost(lost)
        self._pump()

    def _forget(self, run: RunKey) -> None:
        self._numbering.drop(run)
        self._lost[run] = None
        if len(self._lost) > _LOST_REMEMBERED:
            self._lost.popitem(last=False)

    def _refused(self, events: list[TodoEvent], error: Exception) -> None:
        if self._options.retryable(error):
            self._tries += 1
            delay = self._options.backoff.delay(self._tries)

            def again(_: abc.SchedulerBase, __: object = None) -> None:
                self._store(events)

            self._storing.disposable = self._clock.schedule_relative(delay, again)
            if self._options.on_retry is not None:
                self._options.on_retry(error, self._tries, delay)
            return
        self._tries = 0
        self._parts.popleft()
        self._numbering.take_back(events)
        if len(events) > 1:
            middle = len(events) // 2
            self._parts.extendleft((events[middle:], events[:middle]))
        else:
            self._leave_out(events[0], error)
        self._busy = False
        self._pump()

    def _leave_out(self, event: TodoEvent, error: Exception) -> None:
        was_replacement = event.id in self._replaced
        self._replaced.discard(event.id)
        replacement = self._options.on_error(event, error)
        if replacement is not None and not was_replacement:
            self._replaced.add(replacement.id)
            self._parts.appendleft([replacement])
        elif event.outcome is not None:
            self._numbering.drop(run_key(event))

    # The end ------------------------------------------------------------------------------------------------

    def _done(self, error: Exception | None = None) -> None:
        self._source_done = True
        self._source_error = error
        self._pump()
