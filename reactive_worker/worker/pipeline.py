"""The stream of one worker, put together: sources, operators, dispatch, sink.

Everything here runs in the event loop's thread. The operators are pure; this module gives them the store's
and the runner's coroutines as observables, and the subjects through which demand, settled ids and health flow
back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from reactivex.abc import SchedulerBase
from reactivex.disposable import CompositeDisposable
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import BehaviorSubject, Subject

from reactive_worker import streams
from reactive_worker.errors import InvalidTaskError
from reactive_worker.models import Candidate, ClaimResult, Demand, SweepResult, Todo, TodoEvent
from reactive_worker.worker.delivery import event_size

logger = logging.getLogger(__name__)

T = TypeVar("T")
CandidatesHook = Callable[[Observable[Candidate]], Observable[Candidate]]
EventsHook = Callable[[Observable[TodoEvent]], Observable[TodoEvent]]

#: Candidates kept in memory. A candidate is some 300 bytes: a backlog of millions costs no more than this.
CAPACITY = 1_000
#: Candidates offered to one claim, so that workers sharing a backlog do not fight over its first row.
WINDOW = 200
#: Rows asked for by one sweep.
SWEEP_LIMIT = 500


def observe(call: Callable[[], Awaitable[T]]) -> Observable[T]:
    """A cold observable that runs a coroutine at subscription and cancels it at disposal."""

    async def run() -> T:
        return await call()

    def start(_: SchedulerBase) -> Observable[T]:
        return rx.from_future(asyncio.ensure_future(run()))

    return rx.defer(start)


class Clock:
    """The database's time, as far as this process knows it."""

    def __init__(self) -> None:
        self._offset = timedelta()

    def set(self, database_now: datetime) -> None:
        """Note the database's time, just received."""
        self._offset = database_now - datetime.now(UTC)

    def at_least(self, moment: datetime) -> None:
        """It was `moment` in the database, some time ago: what was due then is due now."""
        self._offset = max(self._offset, moment - datetime.now(UTC))

    def now(self) -> datetime:
        """The database's time now, within a round trip."""
        return datetime.now(UTC) + self._offset


class Pipeline:
    """Wires the operators of one worker.

    Parameters
    ----------
    agent_types:
        What this worker runs; rows of other types are ignored.
    sweep, claim, run, store:
        The store's and the runner's calls.
    first_seq:
        The number of the next event of a task when the sink sees it for the first time.
    is_retryable:
        Whether a failed batch may succeed later.
    on_error:
        Called with ``(what, exception)`` for each thing that went wrong and was survived.
    """

    def __init__(
        self,
        *,
        agent_types: Collection[str],
        sweep: Callable[[Sequence[str]], Awaitable[SweepResult]],
        claim: Callable[[Sequence[Candidate], int], Awaitable[ClaimResult]],
        run: Callable[[Todo], Observable[TodoEvent]],
        store: Callable[[Sequence[TodoEvent]], Awaitable[streams.BatchResult]],
        first_seq: Callable[[TodoEvent], int],
        is_retryable: Callable[[BaseException], bool],
        clock: Clock,
        polling_interval: float,
        sweep_interval: float,
        concurrency: int,
        per_type: Mapping[str, int] | None = None,
        candidates: CandidatesHook | None = None,
        events: EventsHook | None = None,
        key: Callable[[Candidate], Any] | None = None,
        order: streams.Order | None = None,
        on_swept: Callable[[SweepResult], None] = lambda result: None,
        on_stored: Callable[[streams.StoredBatch], None] = lambda batch: None,
        on_lost: Callable[[Collection[tuple[str, int]]], None] = lambda runs: None,
        on_unstorable: Callable[[TodoEvent, Exception], TodoEvent | None] = lambda event, error: None,
        on_pressure: Callable[[bool], None] = lambda full: None,
        on_error: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        #: Rows as Realtime tells them.
        self.records: Subject[Mapping[str, Any]] = Subject()
        #: Whether push is proven to work.
        self.healthy: BehaviorSubject[bool] = BehaviorSubject(False)
        #: Sweep now.
        self.kicks: Subject[Any] = Subject()
        #: What flows against the stream of candidates.
        self.backpressure = streams.Backpressure()
        #: Everything the executors say, hot; numbered only once it is stored.
        self.events: Subject[TodoEvent] = Subject()
        #: Events into the sink, whoever made them.
        self.outgoing: Subject[TodoEvent] = Subject()
        self._on_error = on_error or _log_error
        self._loop = asyncio.get_running_loop()
        self._scheduler = AsyncIOScheduler(self._loop)
        self._sources = CompositeDisposable()
        self._rest = CompositeDisposable()
        self._flushed: asyncio.Future[None] = self._loop.create_future()
        self._failed: asyncio.Future[None] = self._loop.create_future()

        self._types = frozenset(agent_types)
        self._full: frozenset[str] = frozenset()
        source = self._candidates(sweep, clock, polling_interval, sweep_interval, on_swept)
        self._events_out: Subject[TodoEvent] = Subject()
        self._build_events(events)
        self._build_sink(store, first_seq, is_retryable, on_stored, on_lost, on_unstorable, on_pressure)
        offered = source.pipe(self._hooked(candidates, "candidates="))
        self._dispatched = self._dispatch(offered, claim, run, concurrency, per_type, key, order)

    @property
    def failed(self) -> asyncio.Future[None]:
        """Done, with the exception, when a part of the stream ended that never may."""
        return self._failed

    def start(self) -> None:
        """Subscribe everything; the first sweep goes out at once."""
        self._sources.add(
            self._dispatched.subscribe(
                on_next=self._events_out.on_next,
                on_error=lambda error: self._fail("the stream of tasks", error),
                scheduler=self._scheduler,
            )
        )

    def stop_claiming(self) -> None:
        """No more claims; running tasks go on and their events are stored."""
        self.backpressure.paused.on_next(True)

    async def flush(self, timeout: float) -> bool:
        """End the event stream, wait until everything said is stored; False when `timeout` s went by."""
        self.outgoing.on_completed()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._flushed)
        except TimeoutError:
            return False
        return True

    def dispose(self) -> None:
        """Drop every subscription."""
        self._sources.dispose()
        self._rest.dispose()
        self._flushed.cancel()
        self._failed.cancel()

    # -- candidates ------------------------------------------------------------------------------------------

    def _candidates(
        self,
        sweep: Callable[[Sequence[str]], Awaitable[SweepResult]],
        clock: Clock,
        polling_interval: float,
        sweep_interval: float,
        on_swept: Callable[[SweepResult], None],
    ) -> Observable[Candidate]:
        def swept(result: SweepResult) -> None:
            clock.set(result.now)
            on_swept(result)

        pushed = self.records.pipe(
            streams.realtime_candidates(on_invalid=self._invalid),
            # The UPDATE binding cannot be filtered by type as well: older servers take one filter only.
            ops.filter(lambda candidate: candidate.agent_type in self._types),
            streams.hold_until_due(now=clock.now, capacity=CAPACITY),
        )
        polled = streams.polling_sweep(
            lambda: observe(lambda: sweep(self._with_room())),
            polling_interval=polling_interval,
            sweep_interval=sweep_interval,
            healthy=self.healthy.pipe(ops.distinct_until_changed()),
            kicks=self.kicks,
            backpressure=self.backpressure,
            on_result=swept,
            on_error=lambda error: self._on_error("a sweep failed; trying again", error),
        )
        return rx.merge(pushed, polled)

    def _note_room(self, demand: Demand) -> None:
        self._full = frozenset(kind for kind, room in demand.per_type.items() if room < 1)

    def _with_room(self) -> list[str]:
        """Types worth sweeping: rows of one at its limit would fill the sweep and hide all others."""
        return sorted(self._types - self._full) or sorted(self._types)

    def _hooked(
        self, hook: Callable[[Observable[T]], Observable[T]] | None, name: str
    ) -> Callable[[Observable[T]], Observable[T]]:
        if hook is None:
            return lambda source: source
        return streams.guarded(
            hook,
            on_error=lambda error: self._on_error(f"an operator in {name} raised; the stream goes on", error),
            name=name,
        )

    def _dispatch(
        self,
        offered: Observable[Candidate],
        claim: Callable[[Sequence[Candidate], int], Awaitable[ClaimResult]],
        run: Callable[[Todo], Observable[TodoEvent]],
        concurrency: int,
        per_type: Mapping[str, int] | None,
        key: Callable[[Candidate], Any] | None,
        order: streams.Order | None,
    ) -> Observable[TodoEvent]:
        self.backpressure.demand.subscribe(self._note_room)

        def unranked(candidate: Candidate, error: Exception) -> None:
            what = f"priority_key raised for task {candidate.id}; a later sweep offers it again"
            self._on_error(what, error)

        def failed(todo: Todo | None, error: BaseException) -> None:
            what = "a claim failed; trying again" if todo is None else f"task {todo.id} could not be run"
            self._on_error(what, error)

        return offered.pipe(
            streams.dedupe(ttl=600.0, capacity=CAPACITY * 4, forget=self.backpressure.released),
            streams.prioritise(
                self.backpressure,
                key=key,
                order=order,
                capacity=CAPACITY,
                window=WINDOW,
                on_error=unranked,
            ),
            streams.dispatch(
                lambda candidates, want: observe(lambda: claim(candidates, want)),
                run,
                self.backpressure,
                concurrency=concurrency,
                per_type=per_type,
                on_error=failed,
            ),
        )

    def _invalid(self, record: Mapping[str, Any], error: BaseException) -> None:
        self._on_error(f"a row told by realtime cannot be read (id {record.get('id')!r})", error)

    # -- events ----------------------------------------------------------------------------------------------

    def _build_events(self, hook: EventsHook | None) -> None:
        # The outcome goes past the user's operators: a filter there may drop what is reported, never that a
        # task has ended. Both halves hear one subject in turn, so synchronous operators keep the order.
        shared = self._events_out
        said = shared.pipe(ops.filter(lambda event: event.outcome is None), self._hooked(hook, "events="))
        ends = shared.pipe(ops.filter(lambda event: event.outcome is not None))

        def out(event: TodoEvent) -> None:
            try:
                self.events.on_next(event)
            except Exception as error:  # noqa: BLE001 - a subscriber of worker.events is the user's code
                self._on_error("a subscriber of worker.events raised", error)
            self.outgoing.on_next(event)

        for half in (said, ends):
            self._rest.add(
                half.subscribe(
                    on_next=out,
                    on_error=lambda error: self._fail("the stream of events", error),
                    scheduler=self._scheduler,
                )
            )

    def _build_sink(
        self,
        store: Callable[[Sequence[TodoEvent]], Awaitable[streams.BatchResult]],
        first_seq: Callable[[TodoEvent], int],
        is_retryable: Callable[[BaseException], bool],
        on_stored: Callable[[streams.StoredBatch], None],
        on_lost: Callable[[Collection[tuple[str, int]]], None],
        on_unstorable: Callable[[TodoEvent, Exception], TodoEvent | None],
        on_pressure: Callable[[bool], None],
    ) -> None:
        stored = self.outgoing.pipe(
            streams.sink(
                lambda batch: observe(lambda: store(batch)),
                first_seq=first_seq,
                retryable=is_retryable,
                on_lost=on_lost,
                on_error=on_unstorable,
                on_pressure=on_pressure,
                on_retry=self._not_stored,
                size=event_size,
            )
        )
        self._rest.add(
            stored.subscribe(
                on_next=on_stored,
                on_error=lambda error: self._fail("the sink", error),
                on_completed=self._all_stored,
                scheduler=self._scheduler,
            )
        )

    def _all_stored(self) -> None:
        if not self._flushed.done():
            self._flushed.set_result(None)

    def _not_stored(self, error: Exception, tries: int, pause: float) -> None:
        # One line when an outage begins; its repetitions say nothing new.
        level = logging.WARNING if tries == 1 else logging.DEBUG
        logger.log(level, "events are not stored yet, trying again in %.1f s: %s", pause, error)

    def _fail(self, what: str, error: BaseException) -> None:
        logger.error("%s ended: %s", what, error, exc_info=error)
        if not self._failed.done():
            self._failed.set_exception(error)


def _log_error(what: str, error: BaseException) -> None:
    level = logging.WARNING if isinstance(error, InvalidTaskError) else logging.ERROR
    logger.log(level, "%s: %s: %s", what, type(error).__name__, error)
