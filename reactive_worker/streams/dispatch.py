"""Claims candidates as slots are free, runs what it got, and lets no run disturb another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable, SingleAssignmentDisposable

from reactive_worker.backoff import Backoff
from reactive_worker.models import Candidate, ClaimResult, Demand, Todo, TodoEvent
from reactive_worker.streams._priority import take_room
from reactive_worker.streams._resting import Resting
from reactive_worker.streams._scheduling import choose_scheduler
from reactive_worker.streams._slots import Slots
from reactive_worker.streams.backpressure import Backpressure

Claim = Callable[[list[Candidate], int], Observable[ClaimResult]]
Run = Callable[[Todo], Observable[TodoEvent]]

#: Of a row that a claim found locked by others. Wide jitter, or two workers that met once meet again.
CLAIM_BACKOFF = Backoff(0.2, 5.0, jitter=0.5)
#: After a claim that failed.
CLAIM_ERROR_BACKOFF = Backoff(0.2, 30.0, jitter=0.5)


def dispatch(
    claim: Claim,
    run: Run,
    backpressure: Backpressure,
    *,
    concurrency: int,
    on_error: Callable[[Todo | None, Exception], None],
    per_type: Mapping[str, int] | None = None,
    claim_backoff: Backoff = CLAIM_BACKOFF,
    error_backoff: Backoff = CLAIM_ERROR_BACKOFF,
    linger: float = 0.02,
    scheduler: abc.SchedulerBase | None = None,
) -> Callable[[Observable[list[Candidate]]], Observable[TodoEvent]]:
    """Turn windows of candidates into the events of running them.

    ::

        demand    2--------------------1-----1-----
        windows   --[a,b,c]--------------[c]-------
        claim       (a,b: ours)           (c: ours)
        run a        -1--2--3|
        run b         ---1------X                      X: an error, told, and the slot is free
        run c                           ----1--|
        settled   ---a,b-----------------c---------
        result    ----1--21-3---------------1------

    One claim is in flight at a time, and it never wants more rows than there are free slots. All rows of a
    claim start at once. A row that a claim passed over is locked by somebody else: it is left alone for a
    while that grows, by itself; the others are claimed at full pace.

    Parameters
    ----------
    claim:
        Asks for up to `want` of these candidates, in this order; its observable brings one result.
    run:
        Runs a claimed row. Its completion, or its error, frees the slot.
    backpressure:
        The other side of the pipeline. Said here: `demand` (how many rows can be taken, each time that
        changes; 0 while paused), `settled` (claimed or gone: they need no place in a window any more) and
        `finished` (ids of runs that ended, and of candidates that are gone), `busy` (locked by somebody
        else). Heard here: `paused`; while it
        is true nothing is claimed, and what runs goes on.
    concurrency:
        How many rows run at the same time at most.
    on_error:
        Told (row, error) when a run fails, (None, error) when a claim does.
    per_type:
        Of these agent types, at most so many at the same time.
    claim_backoff:
        How long a candidate is left alone that is locked by somebody else.
    error_backoff:
        Pace of claims while they fail.
    linger:
        Seconds to wait for more slots when one gets free and the last claim got all it wanted (there is a
        backlog): so that a busy worker claims many rows with one request. Over as soon as a quarter of the
        slots is free, and never for an idle worker.
    scheduler:
        Runs the timers; default the subscription's.

    Returns
    -------
    An operator. Windows nobody asked for (no slot free, a claim in flight, paused) are ignored: the
    candidates are not claimed, so nothing is lost. When the source completes or errors, runs in flight end
    first. Disposal disposes the runs.

    Raises
    ------
    ValueError
        When `concurrency` is below 1, a limit of `per_type` or `linger` below 0.

    Example
    -------
    >>> import reactivex
    >>> from reactivex.subject import Subject
    >>> windows, backpressure = Subject(), Backpressure()
    >>> _ = backpressure.demand.subscribe(lambda demand: print("wants", demand.total))
    >>> nothing = lambda candidates, want: reactivex.just(ClaimResult((), ()))
    >>> running = windows.pipe(dispatch(nothing, lambda todo: reactivex.empty(), backpressure,
    ...     concurrency=3, on_error=print)).subscribe()
    wants 3
    """
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency!r}")
    if linger < 0:
        raise ValueError(f"linger must be at least 0 seconds, not {linger!r}")
    limits = dict(per_type or {})
    for agent_type, most in limits.items():
        if most < 0:
            raise ValueError(f"per_type[{agent_type!r}] must be at least 0, not {most!r}")
    options = _Options(
        claim,
        run,
        backpressure,
        concurrency,
        on_error,
        limits,
        claim_backoff,
        error_backoff,
        linger,
    )

    def operator(source: Observable[list[Candidate]]) -> Observable[TodoEvent]:
        def subscribe(
            observer: abc.ObserverBase[TodoEvent], scheduler_: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            clock = choose_scheduler(scheduler, scheduler_)
            return _Dispatcher(options, observer, clock, scheduler or scheduler_).run(source)

        return Observable(subscribe)

    return operator


@dataclass(frozen=True, slots=True)
class _Options:
    claim: Claim
    run: Run
    backpressure: Backpressure
    concurrency: int
    on_error: Callable[[Todo | None, Exception], None]
    per_type: Mapping[str, int]
    claim_backoff: Backoff
    error_backoff: Backoff
    linger: float


class _Dispatcher:
    """One subscription: its slots, the claim in flight, and whether demand stands or waits for a timer."""

    def __init__(
        self,
        options: _Options,
        observer: abc.ObserverBase[TodoEvent],
        clock: abc.SchedulerBase,
        upstream: abc.SchedulerBase | None,
    ) -> None:
        self._options = options
        self._backpressure = options.backpressure
        self._observer = observer
        self._clock = clock
        self._upstream = upstream
        self._claim = SerialDisposable()
        self._timer = SerialDisposable()
        self._slots = Slots(options.concurrency, options.per_type)
        self._resting = Resting(options.claim_backoff)
        self._claiming = False
        self._backing_off = False
        self._lingering = False
        self._demanded = False
        self._paused = False
        self._disposed = False
        self._asking = False
        self._ask_again = False
        self._failed_claims = 0
        self._source_done = False
        self._source_error: Exception | None = None

    def run(self, source: Observable[list[Candidate]]) -> abc.DisposableBase:
        group = CompositeDisposable(self._claim, self._timer, Disposable(self._dispose))
        # Nothing may be asked before the source listens to demand.
        self._asking = True
        paused = self._backpressure.paused
        group.add(paused.subscribe(self._pause, self._pause_failed, scheduler=self._upstream))
        group.add(source.subscribe(self._window, self._done, self._done, scheduler=self._upstream))
        self._asking = False
        self._ask()
        return group

    def _dispose(self) -> None:
        self._disposed = True
        self._slots.dispose()

    # Demand -------------------------------------------------------------------------------------------------

    def _may_claim(self) -> bool:
        return self._slots.free > 0 and not (
            self._paused or self._claiming or self._backing_off or self._source_done or self._disposed
        )

    def _ask(self) -> None:
        # A loop and not recursion: a source that answers demand at once, with claims and runs that end at
        # once, comes back here from inside `on_next`, once for each row of the backlog.
        self._ask_again = True
        if self._asking:
            return
        self._asking = True
        try:
            while self._ask_again and self._may_claim():
                self._ask_again = False
                self._lingering = False
                self._timer.disposable = Disposable()
                self._demanded = True
                self._backpressure.demand.on_next(Demand(self._slots.free, self._slots.room()))
        finally:
            self._asking = False

    def _slots_freed(self) -> None:
        if not self._may_claim():
            return
        if (
            self._demanded
            or not self._options.linger
            or self._slots.free >= max(1, self._options.concurrency // 4)
        ):
            self._ask()
        elif not self._lingering:
            self._lingering = True
            self._ask_in(self._options.linger)

    def _ask_in(self, delay: float) -> None:
        def ask(_: abc.SchedulerBase, __: object = None) -> None:
            self._backing_off = self._lingering = False
            self._ask()

        self._timer.disposable = self._clock.schedule_relative(delay, ask)

    def _back_off(self, delay: float) -> None:
        self._backing_off = True
        self._lingering = False
        self._ask_in(delay)

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        if not paused:
            self._ask()
        elif self._demanded:
            self._demanded = False
            self._backpressure.demand.on_next(Demand(0))

    def _pause_failed(self, error: Exception) -> None:
        self._options.on_error(None, error)

    # Claims -------------------------------------------------------------------------------------------------

    def _window(self, candidates: list[Candidate]) -> None:
        self._demanded = False
        if not self._may_claim():
            return
        room = self._slots.room()
        now = self._now()
        left = [self._resting.left(candidate.id, now) for candidate in candidates]
        # Whatever made the window may know nothing of the limits, nor of what is busy; a claim takes any of
        # those it is shown.
        fitting = [
            candidate
            for candidate, rest in zip(candidates, left, strict=True)
            if not rest and take_room(room, candidate)
        ]
        if not fitting:
            if resting := [rest for rest in left if rest]:
                self._ask_in(min(resting))
            return
        want = min(self._slots.free, len(fitting))
        self._claiming = True
        subscription = SingleAssignmentDisposable()
        self._claim.disposable = subscription
        try:
            stream = self._options.claim(fitting, want)
        except Exception as error:  # noqa: BLE001 - a claim that cannot even start is a failing claim
            self._claim_failed(error)
            return
        answers: list[ClaimResult] = []

        def completed() -> None:
            self._claimed(answers[0] if answers else ClaimResult((), ()), fitting, want)

        subscription.disposable = stream.pipe(ops.take(1)).subscribe(
            answers.append, self._claim_failed, completed, scheduler=self._upstream
        )

    def _claimed(self, result: ClaimResult, offered: list[Candidate], want: int) -> None:
        self._failed_claims = 0
        # Slots are taken before anybody is told: feedback that comes at once must find them taken.
        starts = [(todo, self._slots.take(todo)) for todo in result.claimed]
        settled = [*(todo.id for todo in result.claimed), *result.gone]
        if settled:
            self._resting.forget(settled)
            self._backpressure.settled.on_next(settled)
        busy = _passed_over(offered, settled, found_all=len(result.claimed) >= want)
        if busy:
            self._backpressure.busy.on_next(self._resting.rest(busy, self._now()))
        if result.gone:
            self._backpressure.finish(result.gone)
        for todo, number in starts:
            if self._disposed:
                return
            self._start(todo, number)
        self._claiming = False
        if len(result.claimed) < want:
            self._ask()
        else:
            self._slots_freed()
        self._finish_when_done()

    def _claim_failed(self, error: Exception) -> None:
        self._claiming = False
        self._failed_claims += 1
        self._back_off(self._options.error_backoff.delay(self._failed_claims))
        self._options.on_error(None, error)
        self._finish_when_done()

    # Runs ---------------------------------------------------------------------------------------------------

    def _start(self, todo: Todo, number: int) -> None:
        def ended(error: Exception | None = None) -> None:
            if not self._slots.give_back(number):
                return
            self._backpressure.finish((todo.id,))
            if error is not None:
                self._options.on_error(todo, error)
            self._slots_freed()
            self._finish_when_done()

        subscription = self._slots.run(number)
        try:
            stream = self._options.run(todo)
        except Exception as error:  # noqa: BLE001 - the error boundary of a row: others go on
            ended(error)
            return
        subscription.disposable = stream.subscribe(
            self._observer.on_next, ended, ended, scheduler=self._upstream
        )

    # The end ------------------------------------------------------------------------------------------------

    def _done(self, error: Exception | None = None) -> None:
        self._source_done = True
        self._source_error = error
        self._finish_when_done()

    def _finish_when_done(self) -> None:
        if not self._source_done or not self._slots.idle or self._claiming:
            return
        if self._source_error is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(self._source_error)

    def _now(self) -> float:
        return self._clock.to_seconds(self._clock.now)


def _passed_over(offered: list[Candidate], settled: list[str], *, found_all: bool) -> list[str]:
    """Which of these a claim found locked: it takes them in order, so those before the last it took.

    All of them, when it found less than it wanted.
    """
    known = set(settled)
    if found_all:
        last = max((n for n, candidate in enumerate(offered) if candidate.id in known), default=-1)
        offered = offered[: last + 1]
    return [candidate.id for candidate in offered if candidate.id not in known]
