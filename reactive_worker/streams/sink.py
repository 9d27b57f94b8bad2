"""Events leave here: in order, in batches, numbered without gaps, retried for as long as it takes."""

from __future__ import annotations

from collections.abc import Callable, Collection

from reactivex import Observable, abc

from reactive_worker.backoff import Backoff
from reactive_worker.models import TodoEvent
from reactive_worker.streams._answers import BatchResult, Store, StoredBatch
from reactive_worker.streams._lanes import Lanes
from reactive_worker.streams._numbering import RunKey
from reactive_worker.streams._outbox import Bounds, Outbox
from reactive_worker.streams._scheduling import choose_scheduler
from reactive_worker.streams._shipment import Options, Shipment

__all__ = ["STORE_BACKOFF", "BatchResult", "StoredBatch", "sink"]

#: Pace of what is refused for now.
STORE_BACKOFF = Backoff(0.1, 10.0, jitter=0.2)

MIB = 1024 * 1024


def sink(
    store: Store,
    *,
    first_seq: Callable[[TodoEvent], int],
    retryable: Callable[[Exception], bool],
    on_lost: Callable[[Collection[RunKey]], None],
    on_error: Callable[[TodoEvent, Exception], TodoEvent | None],
    on_retry: Callable[[Exception, int, float], None] | None = None,
    on_pressure: Callable[[bool], None] | None = None,
    on_run_pressure: Callable[[RunKey, bool], None] | None = None,
    size: Callable[[TodoEvent], int] | None = None,
    max_batch: int = 200,
    max_bytes: int = 4 * MIB,
    max_delay: float = 0.02,
    capacity: int = 10_000,
    capacity_bytes: int = 64 * MIB,
    merge_chunks: bool = True,
    backoff: Backoff = STORE_BACKOFF,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[TodoEvent]], Observable[StoredBatch]]:
    """Store a stream of events in batches, one after the other.

    ::

        source   --a-b-c----d--e--------------f|
                   [--20ms]   [full]
        store             abc  de  d   e       f        de is refused for now, then d again
        result    --------abc----------e-------f----d|

    A batch leaves when it has `max_batch` events or `max_bytes`, or `max_delay` after its first; while one is
    in flight the next gathers. Within it neighbouring text chunks of an artifact are one event (see
    `merge_chunks`). Events get their numbers when they are sent and keep them through every retry, so storing
    one twice is harmless. The order of a run's events is kept, whatever is refused.

    A batch that is refused is halved until the culprit stands alone. *For now* (`retryable`): the run that
    cannot be stored is put aside, where it is tried again ever more slowly, while the events of all others
    flow on; batches become smaller for a while, since a store may be slow rather than away. *For good*: the
    offending event is left out or replaced (`on_error`), and those after it take its number, for readers
    resume by number and must not find a gap.

    Parameters
    ----------
    store:
        Writes a batch in one go, or as good as, and says what became of each run (`BatchResult`). It may be
        given the same events again, ids and numbers unchanged; two calls are under way at most, never with
        the same run.
    first_seq:
        The number of a run's first event, one above what the claim wrote. Asked once for each (task,
        attempt).
    retryable:
        Whether the same batch may pass later: true for an unreachable database, false for a value it refuses.
    on_lost:
        Given the runs, as (task id, attempt), that are another worker's now; what they still say is dropped.
        Another attempt of the same task is another run.
    on_error:
        Given an event that cannot be stored, and why. May return another to store in its place (an outcome
        must be known, so a failed one for a result that cannot be stored); None leaves it out. A replacement
        that is refused too is given in turn, and left out whatever is returned.
    on_retry:
        Told (error, tries so far, seconds until the next).
    on_pressure:
        True when more than `capacity` events or `capacity_bytes` wait, False when half of it does. Whoever
        produces events should wait meanwhile: the sink accepts them all the same.
    on_run_pressure:
        The same for one run, as (task id, attempt), that is put aside and fills a tenth of the buffer.
    size:
        Bytes of an event; without it bytes are not counted.
    max_batch:
        The most events in a batch, after merging.
    max_bytes:
        The most bytes in a batch; an event larger than that is sent by itself.
    max_delay:
        Seconds an event waits for company.
    capacity:
        Events waiting above which there is pressure.
    capacity_bytes:
        Bytes waiting above which there is pressure.
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
        When `max_batch`, `max_bytes`, `capacity` or `capacity_bytes` is below 1, or `max_delay` below 0.

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
    limits = {
        "max_batch": max_batch,
        "max_bytes": max_bytes,
        "capacity": capacity,
        "capacity_bytes": capacity_bytes,
    }
    for name, limit in limits.items():
        if limit < 1:
            raise ValueError(f"{name} must be at least 1, not {limit!r}")
    if max_delay < 0:
        raise ValueError(f"max_delay must be at least 0 seconds, not {max_delay!r}")
    most = None if size is None else max_bytes
    most_waiting = None if size is None else capacity_bytes
    bounds = Bounds(max_batch, most, max_delay, capacity, most_waiting, merge_chunks)
    options = Options(
        store, first_seq, retryable, on_lost, on_error, on_retry, size, max_batch, most, backoff
    )  # fmt: skip

    def operator(source: Observable[TodoEvent]) -> Observable[StoredBatch]:
        def subscribe(
            observer: abc.ObserverBase[StoredBatch], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            clock = choose_scheduler(scheduler, scheduler_)
            lanes = Lanes(capacity, bounds.capacity_bytes, on_run_pressure)

            def outbox(on_due: Callable[[], None]) -> Outbox:
                return Outbox(bounds, lanes, on_due, on_pressure, clock)

            shipment = Shipment(options, outbox, lanes, observer, clock, scheduler or scheduler_)
            return shipment.run(source)

        return Observable(subscribe)

    return operator
